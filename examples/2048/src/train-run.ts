import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { compare, gather, writeGroups } from "@hone/client";
import type {
  Comparison,
  GatherEvent,
  Hone,
  Model,
  Policy,
  TrainResult,
  TrajectoryGroup,
} from "@hone/client";
import { createRollout } from "./rollout.ts";
import type { Scenario } from "./rollout.ts";

export interface RunOptions {
  name: string;
  size: number;
  target: number;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  evalSeeds: number;
  learningRate: number;
  concurrency: number;
  /** Folder of metrics.jsonl, trajectories and summary.json. */
  out: string;
}

export interface StepReport {
  step: number;
  steps: number;
  policy: string;
  rewardMean: number;
  rewardStd: number;
  scoreMean: number;
  games: number;
  failed: number;
  /** Sampled tokens per second while the games were played. */
  tokensPerSecond: number;
  gatherSeconds: number;
  trainSeconds: number;
  result: TrainResult;
}

export interface RunSummary {
  policy: string;
  steps: number;
  score: Comparison;
  won: Comparison;
  seconds: number;
  out: string;
  adapter: string | null;
}

/** Hears how the run goes; says nothing itself. */
export interface RunListener {
  began(task: string, total: number): void;
  progressed(done: number, note: string): void;
  stepEnded(report: StepReport): void;
}

/** Held out: no training game has such a seed. */
const firstEvalSeed = 1_000_000;
const trainingSeeds = 100_000;

export async function runTraining(
  hone: Hone,
  options: RunOptions,
  listener: RunListener,
  signal: AbortSignal,
): Promise<RunSummary> {
  const began = performance.now();
  await mkdir(join(options.out, "trajectories"), { recursive: true });
  const model = await hone.model({ name: options.name }, { signal });
  const { maxModelLen } = await model.info({ signal });
  const play = createRollout({ ...options, contextTokens: maxModelLen });

  async function playAll(
    policy: Policy,
    scenarios: readonly Scenario[],
    groupSize: number,
    task: string,
    mode: "train" | "eval",
  ): Promise<TrajectoryGroup[]> {
    listener.began(task, scenarios.length * groupSize);
    return await gather(policy, play, scenarios, {
      groupSize,
      mode,
      concurrency: options.concurrency,
      maxExceptions: 0.1,
      retries: 1,
      signal,
      onProgress: (event) => listener.progressed(event.done, gatherNote(event)),
    });
  }

  async function evaluate(policy: Policy, label: string): Promise<TrajectoryGroup[]> {
    const scenarios = Array.from({ length: options.evalSeeds }, (_, index) => ({
      seed: firstEvalSeed + index,
    }));
    const groups = await playAll(policy, scenarios, 1, `evaluating ${label}`, "eval");
    await writeGroups(join(options.out, "trajectories", `eval-${label}.jsonl`), groups);
    return groups;
  }

  const before = await evaluate(model.at(0), "base");
  const adapter = await trainSteps(model, options, listener, signal, playAll);
  const after = await evaluate(model, "trained");
  const summary: RunSummary = {
    policy: after[0]?.trajectories[0]?.policy ?? model.name,
    steps: options.steps,
    score: compare(before, after, { metric: "score" }),
    won: compare(before, after, { metric: "won" }),
    seconds: (performance.now() - began) / 1000,
    out: options.out,
    adapter,
  };
  await writeFile(join(options.out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
  return summary;
}

async function trainSteps(
  model: Model,
  options: RunOptions,
  listener: RunListener,
  signal: AbortSignal,
  playAll: (
    policy: Policy,
    scenarios: readonly Scenario[],
    groupSize: number,
    task: string,
    mode: "train",
  ) => Promise<TrajectoryGroup[]>,
): Promise<string | null> {
  const { groupsPerStep, groupSize, steps } = options;
  const scenarios = Array.from({ length: trainingSeeds }, (_, index) => ({ seed: index + 1 }));
  let adapter: string | null = null;
  for await (const batch of model.batches(scenarios, { groupsPerStep, steps })) {
    const label = `step ${batch.step + 1}/${steps}`;
    const gatherBegan = performance.now();
    const groups = await playAll(model, batch.scenarios, groupSize, `${label} playing`, "train");
    const trainBegan = performance.now();
    listener.began(`${label} training`, 1);
    const result = await model.train(groups, {
      batch,
      learningRate: options.learningRate,
      warmupSteps: 2,
      optimizerSteps: 2,
      epsilonLow: 0.2,
      epsilonHigh: 0.28,
      scaleRewards: "group",
      // About what a game samples, so that the loss is a mean over tokens in size.
      normalizerTokens: 64,
      signal,
      onEvent: (event) => {
        if (event.type === "progress") listener.progressed(event.done / event.total, "");
      },
    });
    const trainEnded = performance.now();
    adapter = result.checkpoint ?? adapter;
    const report = reportOf(groups, result, {
      step: batch.step + 1,
      steps,
      gatherSeconds: (trainBegan - gatherBegan) / 1000,
      trainSeconds: (trainEnded - trainBegan) / 1000,
    });
    const file = `step-${String(batch.step + 1).padStart(4, "0")}.jsonl`;
    await writeGroups(join(options.out, "trajectories", file), groups);
    await appendFile(join(options.out, "metrics.jsonl"), `${JSON.stringify(report)}\n`);
    listener.stepEnded(report);
  }
  return adapter;
}

function reportOf(
  groups: readonly TrajectoryGroup[],
  result: TrainResult,
  times: Pick<StepReport, "step" | "steps" | "gatherSeconds" | "trainSeconds">,
): StepReport {
  const games = groups.flatMap((group) => group.trajectories);
  const rewards = games.flatMap(({ reward }) => (reward === null ? [] : [reward]));
  const sampled = games.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
  return {
    ...times,
    policy: result.policy,
    rewardMean: mean(rewards),
    rewardStd: standardDeviation(rewards),
    scoreMean: mean(games.map(({ metrics }) => metrics["score"] ?? 0)),
    games: games.length,
    failed: groups.reduce((sum, group) => sum + group.exceptions.length, 0),
    tokensPerSecond: sampled / times.gatherSeconds,
    result,
  };
}

function gatherNote(event: GatherEvent): string {
  if (event.type === "rollout-finished") return `score ${event.trajectory.metrics["score"] ?? 0}`;
  return event.exception.message;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function standardDeviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
}
