// Hone's side: the loop of a user's program, against a server of its own.
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { gather, type Rollout, type TrajectoryGroup } from "@hone/client";
import { completionListSchema } from "@hone/core";
import { processorSeconds } from "./child.ts";
import { startHoneServer, type BenchServer, type Machine } from "./hone-server.ts";
import { judgedSteps, stepFolder, type RunRecord, type StepTime } from "./run-record.ts";
import type { LearnTask } from "./task.ts";

export async function runHone(
  task: LearnTask,
  { seed, machine, folder }: { seed: number; machine: Machine; folder: string },
  onStep: (step: StepTime) => void,
): Promise<RunRecord> {
  const { settings } = task;
  const play: Rollout<unknown> = (model, scenario) => task.rollout(model, scenario);
  const judged = new Set(judgedSteps(settings));
  const started = performance.now();
  const server = await startHoneServer(task, machine, folder);
  try {
    const name = `learn-${task.name}`;
    const model = await server.hone.model({ name, lora: { r: 16, alpha: 32 }, seed });
    const startSeconds = (performance.now() - started) / 1000;
    let spent = await processorTime(server);
    const steps: StepTime[] = [];
    let promptIds: number[] = [];
    const began = performance.now();
    let paused = 0;
    const clock = (): number => (performance.now() - began - paused) / 1000;
    const plan = {
      groupsPerStep: settings.groupsPerStep,
      steps: settings.steps,
      seed,
      shuffle: false,
      heldOut: task.heldOut,
    };
    for await (const batch of model.batches(task.train(seed), plan)) {
      const before = clock();
      const groups = await gather(model, play, batch.scenarios, {
        groupSize: settings.groupSize,
        concurrency: settings.groupsPerStep * settings.groupSize,
      });
      const gathered = clock();
      const result = await model.train(groups, {
        batch,
        learningRate: settings.learningRate,
        warmupSteps: settings.warmupSteps,
        scaleRewards: settings.scaleRewards,
        normalizerTokens: settings.maxTokens,
      });
      const seconds = clock();
      const pause = performance.now();
      const spentNow = await processorTime(server);
      const step: StepTime = {
        step: batch.step + 1,
        seconds,
        processorSeconds: spent === null || spentNow === null ? null : spentNow - spent,
        reward: meanReward(groups),
        tokens: result.metrics["completions/mean_length"] ?? null,
        entropy: result.metrics["entropy"] ?? null,
        gatherSeconds: gathered - before,
      };
      steps.push(step);
      onStep(step);
      if (batch.step === 0) promptIds = await firstPrompt(server, groups);
      // A step that had no signal leaves the policy that there is: step N of the run may be an older policy.
      if (judged.has(step.step)) {
        await keepAdapter(server, name, result.step, stepFolder(folder, step.step));
      }
      const spentLater = await processorTime(server);
      if (spent !== null && spentNow !== null && spentLater !== null)
        spent += spentLater - spentNow;
      paused += performance.now() - pause;
    }
    return { contender: "hone", seed, startSeconds, promptIds, steps };
  } finally {
    await server.stop();
    await rm(server.dataDir, { recursive: true, force: true });
  }
}

/** Of the agent, which is this process, and of the server with its children. */
async function processorTime(server: BenchServer): Promise<number | null> {
  const { user, system } = process.cpuUsage();
  const theirs = await processorSeconds(server.pid);
  return theirs === null ? null : theirs + (user + system) / 1e6;
}

function meanReward(groups: readonly TrajectoryGroup[]): number | null {
  const rewards = groups.flatMap(({ trajectories }) =>
    trajectories.flatMap(({ reward }) => (reward === null ? [] : [reward])),
  );
  return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
}

/** As the ledger has it. */
async function firstPrompt(
  server: BenchServer,
  groups: readonly TrajectoryGroup[],
): Promise<number[]> {
  const rollout = groups[0]?.trajectories[0]?.rolloutId ?? "";
  const response = await fetch(`${server.url}/v1/rollouts/${rollout}/completions`, {
    headers: { authorization: `Bearer ${server.key}` },
  });
  return completionListSchema.parse(await response.json()).data[0]?.promptIds ?? [];
}

async function keepAdapter(
  { dataDir }: BenchServer,
  model: string,
  step: number,
  folder: string,
): Promise<void> {
  for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
    await cp(join(dataDir, "models", model, "policies", String(step), file), join(folder, file));
  }
}
