import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  compare,
  evaluationTable,
  gather,
  HoneError,
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
import type { TaskFingerprint } from "./fingerprint.ts";
import type { Task } from "./task-file.ts";
import { openTotals, type RunTotals, type Totals } from "./totals.ts";
import { decide, type Verdict } from "./verdict.ts";

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
  /** Folder of metrics.jsonl, curves.svg, trajectories, totals.json and summary.json. */
  out: string;
}

/** summary.json. The totals are those of all starts of the run. */
export interface RunSummary extends Totals, Verdict {
  policy: string;
  steps: number;
  seed: number;
  metric: string;
  /** What decides: greedy answers to the held-out scenarios, base against trained. */
  verdict: Comparison;
  /** Held-out scenarios that each was to answer. */
  heldOut: number;
  /** Rollouts that failed and count for nobody, by evaluation; only where there are any. */
  failed: Record<string, number>;
  table: EvaluationRow[];
  curves: string[];
  out: string;
  /** In the server's data folder; null where nothing was learnt. */
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
  const { name, seed, temperature, out } = options;
  const model = await hone.model({ name, seed }, { signal });
  const { base } = await model.info({ signal });
  const log = await openLog(task, options, base);
  const totals = await openTotals(join(out, "totals.json"));
  const run = createRun({ task, options, log, totals, listener, signal });
  try {
    const before = {
      greedy: await run.evaluateOnce(model.at(0), "base greedy", 0),
      sampled: await run.evaluateOnce(model.at(0), "base sampled", temperature),
    };
    await trainSteps(model, task, options, run);
    const after = {
      greedy: await run.evaluate(model, "trained greedy", 0),
      sampled: await run.evaluate(model, "trained sampled", temperature),
    };
    const summary: RunSummary = {
      policy: after.greedy.flatMap(({ trajectories }) => trajectories)[0]?.policy ?? name,
      ...{ steps: options.steps, seed },
      ...judge(task, before, after),
      curves: log.lines(),
      ...totals.soFar(),
      out,
      adapter: await model.checkpoint({ signal }),
    };
    await writeFile(join(out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
    return summary;
  } finally {
    await totals.save();
  }
}

/** The scores of a run that has begun are of its task: with another one they mean nothing. */
async function openLog(task: Task, options: RunOptions, base: string): Promise<RunLog> {
  const { name, seed, temperature, shuffleRewards: shuffled, out } = options;
  const settings = { name, base, seed, temperature, shuffleRewards: shuffled };
  const ofTask = { heldOut: task.heldOut.length, ...task.fingerprint };
  try {
    return await openRunLog(out, { settings: { ...settings, ...ofTask } });
  } catch (error) {
    const changed = HoneError.isInstance(error) && taskSettings[error.param ?? ""];
    if (!changed) throw error;
    throw new HoneError(
      `The task has changed since the run in ${out} began: ${changed}. Its stored scores are of the earlier task. Put that back, or begin another run.`,
      { code: "invalid_config", param: "task", cause: error },
    );
  }
}

const taskSettings: Readonly<Record<string, string>> = {
  heldOut: "it holds out another number of scenarios",
  heldOutScenarios: "it holds out other scenarios",
  metric: "another metric decides",
  taskSource: "its file, or one that it imports, is another",
} satisfies Record<keyof TaskFingerprint | "heldOut", string>;

interface Evaluated {
  greedy: TrajectoryGroup[];
  sampled: TrajectoryGroup[];
}

function judge({ metric, slice, heldOut }: Task, before: Evaluated, after: Evaluated) {
  const verdict = compare(before.greedy, after.greedy, { metric });
  const evaluations = {
    greedy: { "base greedy": before.greedy, "trained greedy": after.greedy },
    sampled: { "base sampled": before.sampled, "trained sampled": after.sampled },
  };
  const greedy = evaluationTable(evaluations.greedy, { metric, by: slice ?? undefined });
  const sampled = evaluationTable(evaluations.sampled, { metric });
  // The first row of each is that of all scenarios.
  const slices = greedy.filter(({ name }) => name === "trained greedy").slice(1);
  const decided = decide(verdict, slices);
  const failed = Object.entries({ ...evaluations.greedy, ...evaluations.sampled })
    .map(([name, groups]) => [name, groups.flatMap(({ exceptions }) => exceptions).length] as const)
    .filter(([, count]) => count > 0);
  return {
    ...{ metric, verdict, heldOut: heldOut.length, failed: Object.fromEntries(failed) },
    ...decided,
    below: [...decided.below, ...sampled.filter(({ difference }) => (difference ?? 0) < 0)],
    table: [...greedy, ...sampled],
  };
}

type Run = ReturnType<typeof createRun>;

function createRun(given: {
  task: Task;
  options: RunOptions;
  log: RunLog;
  totals: RunTotals;
  listener: RunListener;
  signal: AbortSignal;
}) {
  const { task, log, totals, listener, signal } = given;
  const { concurrency, out } = given.options;

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
    await totals.save();
    const seconds = (performance.now() - began) / 1000;
    listener.evaluated(label, record?.score?.mean ?? Number.NaN, seconds);
    return groups;
  }

  return {
    log,
    totals,
    listener,
    signal,
    play,
    evaluate,
    /** Unless an earlier start of this run has made it. */
    async evaluateOnce(policy: Policy, label: string, temperature: number) {
      const made = log.records.findLast((one) => one.type === "evaluation" && one.label === label);
      if (made?.type !== "evaluation") return await evaluate(policy, label, temperature);
      const file = made.file ?? `eval-${label.replaceAll(" ", "-")}.jsonl`;
      const groups = await readGroups(join(out, "trajectories", file));
      if (groups.length === task.heldOut.length) return groups;
      return await evaluate(policy, label, temperature);
    },
  };
}

async function trainSteps(
  model: Model,
  task: Task,
  options: RunOptions,
  { log, totals, listener, signal, play }: Run,
): Promise<void> {
  const { groupsPerStep, groupSize, steps, seed, temperature } = options;
  const plan = { groupsPerStep, steps, seed, shuffle: task.shuffle, heldOut: task.heldOut };
  for await (const batch of model.batches(task.train, plan)) {
    totals.stepBegins();
    const step = log.step(batch);
    const played = await play(model, batch.scenarios, { temperature, groupSize, mode: "train" });
    const groups = step.gathered(
      options.shuffleRewards ? shuffleRewards(played, seed * 1_000_003 + batch.step) : played,
    );
    const result = await model.train(groups, {
      batch,
      learningRate: rateOf(options, batch.trained),
      warmupSteps: 3,
      normalizerTokens: options.answerTokens,
      maxTokensPerMicroBatch: options.microBatchTokens,
      signal,
      onEvent: step.onEvent,
    });
    const record = await step.trained(result);
    totals.stepEnded();
    await totals.save();
    listener.stepEnded(record, steps);
  }
}

/** Adam's steps are as large on noise as on a signal: at the full rate late steps only wander. */
function rateOf({ learningRate, lastRate, steps }: RunOptions, step: number): number {
  const done = steps > 1 ? step / (steps - 1) : 0;
  return learningRate * (1 - (1 - lastRate) * done);
}
