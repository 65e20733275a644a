import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  compare,
  evaluationTable,
  gather,
  openRunLog,
  readGroups,
  shuffleRewards,
} from "@hone/client";
import type {
  Comparison,
  EvaluationRow,
  Hone,
  Model,
  Policy,
  RunLog,
  StepRecord,
  TrajectoryGroup,
} from "@hone/client";
import type { Task } from "./task-file.ts";

export interface RunOptions {
  name: string;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  learningRate: number;
  /** Share of the learning rate at the last step; it falls there in a straight line. */
  lastRate: number;
  temperature: number;
  /** C of the loss: about the tokens of an answer. */
  answerTokens: number;
  /** Tokens of a forward and backward: fewer take less memory. */
  microBatchTokens: number;
  concurrency: number;
  /** Of the adapter's first weights and of the order of the scenarios. */
  seed: number;
  /** The control: each group's rewards change places, so that they say nothing about the answers. */
  shuffleRewards: boolean;
  /** Folder of metrics.jsonl, curves.svg, trajectories and summary.json. */
  out: string;
}

export interface RunSummary {
  policy: string;
  steps: number;
  seed: number;
  metric: string;
  /** What decides: greedy answers to the held-out scenarios, base against trained. */
  verdict: Comparison;
  /** Whether the 95% interval of the improvement is above 0. */
  learnt: boolean;
  table: EvaluationRow[];
  curves: string[];
  seconds: number;
  trainingSeconds: number;
  out: string;
  adapter: string | null;
}

/** Hears how the run goes; says nothing itself. */
export interface RunListener {
  began(evaluation: string, scenarios: number): void;
  evaluated(evaluation: string, score: number, seconds: number): void;
  stepEnded(record: StepRecord, steps: number): void;
}

export async function runTraining(
  hone: Hone,
  task: Task,
  options: RunOptions,
  listener: RunListener,
  signal: AbortSignal,
): Promise<RunSummary> {
  const began = performance.now();
  const { name, seed, temperature } = options;
  const model = await hone.model({ name, seed }, { signal });
  const { base } = await model.info({ signal });
  const log = await openRunLog(options.out, {
    settings: {
      ...{ name, base, seed, temperature, heldOut: task.heldOut.length },
      shuffleRewards: options.shuffleRewards,
    },
  });
  const run = createRun(task, options, log, listener, signal);

  const before = {
    greedy: await run.evaluateOnce(model.at(0), "base greedy", 0),
    sampled: await run.evaluateOnce(model.at(0), "base sampled", temperature),
  };
  const trainingBegan = performance.now();
  const adapter = await trainSteps(model, task, options, run);
  const trainingSeconds = (performance.now() - trainingBegan) / 1000;
  const after = {
    greedy: await run.evaluate(model, "trained greedy", 0),
    sampled: await run.evaluate(model, "trained sampled", temperature),
  };
  const { metric } = task;
  const verdict = compare(before.greedy, after.greedy, { metric });
  const greedy = { "base greedy": before.greedy, "trained greedy": after.greedy };
  const sampled = { "base sampled": before.sampled, "trained sampled": after.sampled };
  const summary: RunSummary = {
    policy: after.greedy[0]?.trajectories[0]?.policy ?? model.name,
    steps: options.steps,
    seed: options.seed,
    metric,
    verdict,
    learnt: verdict.low > 0,
    table: [
      ...evaluationTable(greedy, { metric, by: task.slice ?? undefined }),
      ...evaluationTable(sampled, { metric }),
    ],
    curves: log.lines(),
    seconds: (performance.now() - began) / 1000,
    trainingSeconds,
    out: options.out,
    adapter,
  };
  await writeFile(join(options.out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
  return summary;
}

type Run = ReturnType<typeof createRun>;

function createRun(
  task: Task,
  { concurrency, out }: RunOptions,
  log: RunLog,
  listener: RunListener,
  signal: AbortSignal,
) {
  async function play(
    policy: Policy,
    scenarios: readonly unknown[],
    how: { temperature: number; groupSize: number; mode: "train" | "eval" },
  ): Promise<TrajectoryGroup[]> {
    const { temperature, ...rest } = how;
    return await gather(
      policy,
      (model, scenario) => task.rollout(model, scenario as never, temperature),
      scenarios,
      { ...rest, concurrency, maxExceptions: 0.1, retries: 1, signal },
    );
  }

  async function evaluate(policy: Policy, label: string, temperature: number) {
    listener.began(label, task.heldOut.length);
    const began = performance.now();
    const groups = await play(policy, task.heldOut, { temperature, groupSize: 1, mode: "eval" });
    const metrics = [...new Set([task.metric, "reward"])];
    const [record] = await log.evaluation(label, groups, { metrics });
    const seconds = (performance.now() - began) / 1000;
    listener.evaluated(label, record?.score?.mean ?? Number.NaN, seconds);
    return groups;
  }

  return {
    log,
    listener,
    signal,
    play,
    evaluate,
    /** Unless an earlier start of this run has made it. */
    async evaluateOnce(policy: Policy, label: string, temperature: number) {
      const made = log.records.some((one) => one.type === "evaluation" && one.label === label);
      const file = join(out, "trajectories", `eval-${label.replaceAll(" ", "-")}.jsonl`);
      const groups = made ? await readGroups(file) : [];
      if (groups.length === task.heldOut.length) return groups;
      return await evaluate(policy, label, temperature);
    },
  };
}

async function trainSteps(
  model: Model,
  task: Task,
  options: RunOptions,
  { log, listener, signal, play }: Run,
): Promise<string | null> {
  const { groupsPerStep, groupSize, steps, seed, temperature } = options;
  const plan = { groupsPerStep, steps, seed, shuffle: task.shuffle, heldOut: task.heldOut };
  let adapter: string | null = null;
  for await (const batch of model.batches(task.train, plan)) {
    const step = log.step(batch);
    const played = await play(model, batch.scenarios, { temperature, groupSize, mode: "train" });
    const groups = step.gathered(
      options.shuffleRewards ? shuffleRewards(played, seed * 1_000_003 + batch.step) : played,
    );
    const result = await model.train(groups, {
      batch,
      learningRate: rateOf(options, batch.step),
      warmupSteps: 3,
      normalizerTokens: options.answerTokens,
      maxTokensPerMicroBatch: options.microBatchTokens,
      signal,
      onEvent: step.onEvent,
    });
    adapter = result.checkpoint ?? adapter;
    listener.stepEnded(await step.trained(result), steps);
  }
  return adapter;
}

/** Adam's steps are as large on noise as on a signal: at the full rate late steps only wander. */
function rateOf({ learningRate, lastRate, steps }: RunOptions, step: number): number {
  const done = steps > 1 ? step / (steps - 1) : 0;
  return learningRate * (1 - (1 - lastRate) * done);
}
