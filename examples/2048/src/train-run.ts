import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  compare,
  ComparisonModel,
  evaluationTable,
  gather,
  openRunLog,
  readGroups,
  shuffleRewards,
} from "@hone/client";
import type {
  Comparison,
  EvaluationRow,
  GatherEvent,
  Hone,
  Model,
  Policy,
  RunLog,
  StepRecord,
  TrainResult,
  TrajectoryGroup,
} from "@hone/client";
import { createRollout } from "./rollout.ts";
import type { Scenario } from "./rollout.ts";
import { createStageClock, type StageClock } from "./stages.ts";
import { bestStyle, styleMetric, styleNames, type StyleName } from "./styles.ts";

export interface RunOptions {
  name: string;
  size: number;
  target: number;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  /** A held-out score every so many steps; 0 for none before the verdict. */
  evalEvery: number;
  /** Held-out games of the scores on the way, the first ones of the verdict's. */
  evalSeeds: number;
  /** Held-out games that base and trained policy play at the end. */
  verdictSeeds: number;
  /** Tokens that an answer may have: more for a model that thinks first. */
  answerTokens: number;
  learningRate: number;
  /** Share of it that is left at the last step; it falls linearly. */
  lastRate: number;
  concurrency: number;
  /** Of the adapter's first weights and of the order of the training games. */
  seed: number;
  /** The control: each group's rewards change places, so that they say nothing about the games. */
  shuffleRewards: boolean;
  /** Other models that play the verdict's games. */
  others: readonly ComparisonModel[];
  /** Folder of metrics.jsonl, curves.svg, trajectories and summary.json. */
  out: string;
}

export interface StepReport {
  steps: number;
  record: StepRecord;
  result: TrainResult;
}

export interface RunSummary {
  policy: string;
  steps: number;
  score: Comparison;
  won: Comparison;
  seed: number;
  /** Base, trained and other models side by side. */
  table: EvaluationRow[];
  /** The style that plays the verdict's games best: about what there is to reach. */
  ceiling: { name: StyleName; score: number; won: number };
  /** Share of the moves of base and trained policy that a style would choose too. */
  styles: Record<StyleName, { before: number; after: number }>;
  /** Answers that were asked for, all in all. */
  turns: number;
  /** Seconds of wall time: where the run's time went. */
  stages: Record<string, number>;
  /** The curves in words. */
  curves: string[];
  seconds: number;
  out: string;
  adapter: string | null;
}

/** Hears how the run goes; says nothing itself. */
export interface RunListener {
  began(task: string, total: number): void;
  progressed(done: number, note: string): void;
  stepEnded(report: StepReport): void;
  evaluated(label: string, score: number): void;
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
  const { name, size, target, seed, verdictSeeds } = options;
  const model = await hone.model({ name, seed }, { signal });
  const { maxModelLen, base } = await model.info({ signal });
  const heldOut = Array.from({ length: verdictSeeds }, (_, i) => ({ seed: firstEvalSeed + i }));
  const seeds = heldOut.map((scenario) => scenario.seed);
  const ceiling = bestStyle({ size, target }, seeds);
  const log = await openRunLog(options.out, {
    settings: { name, base, size, target, seed, shuffleRewards: options.shuffleRewards },
    references: { score: { [`${ceiling.name} style`]: ceiling.score } },
    panels: {
      "share of the moves that a style would choose too": Object.fromEntries(
        styleNames.map((style) => [styleMetric(style), style]),
      ),
    },
  });
  const clock = createStageClock();
  const run = createRun({ options, heldOut, log, clock, listener, signal, maxModelLen });

  const before =
    (await run.played("base")) ?? (await run.evaluate(model.at(0), "base", verdictSeeds));
  const adapter = await trainSteps(model, options, run);
  const after = await run.evaluate(model, "trained", verdictSeeds);
  const evaluations: Record<string, TrajectoryGroup[]> = { base: before, trained: after };
  for (const other of options.others) {
    evaluations[other.name] = await run.evaluate(other, other.name, verdictSeeds);
  }
  const summary: RunSummary = {
    policy: after[0]?.trajectories[0]?.policy ?? model.name,
    steps: options.steps,
    score: compare(before, after, { metric: "score" }),
    won: compare(before, after, { metric: "won" }),
    seed,
    table: evaluationTable(evaluations, { metric: "score" }),
    ceiling,
    styles: Object.fromEntries(
      styleNames.map((style) => {
        const shares = compare(before, after, { metric: styleMetric(style) });
        return [style, { before: shares.before, after: shares.after }];
      }),
    ) as RunSummary["styles"],
    turns: run.turns(),
    stages: clock.seconds(),
    curves: log.lines(),
    seconds: (performance.now() - began) / 1000,
    out: options.out,
    adapter,
  };
  await writeFile(join(options.out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
  return summary;
}

type Run = ReturnType<typeof createRun>;

function createRun(given: {
  options: RunOptions;
  heldOut: readonly Scenario[];
  log: RunLog;
  clock: StageClock;
  listener: RunListener;
  signal: AbortSignal;
  maxModelLen: number;
}) {
  const { options, heldOut, log, clock, listener, signal } = given;
  const play = createRollout({ ...options, contextTokens: given.maxModelLen });
  let turns = 0;

  async function playAll(
    policy: Policy | ComparisonModel,
    scenarios: readonly Scenario[],
    groupSize: number,
    task: string,
    mode: "train" | "eval",
  ): Promise<TrajectoryGroup[]> {
    listener.began(task, scenarios.length * groupSize);
    const groups = await clock.time(mode === "train" ? "playing" : "evaluating", () =>
      gather(policy, play, scenarios, {
        groupSize,
        mode,
        concurrency: options.concurrency,
        maxExceptions: 0.1,
        retries: 1,
        signal,
        onProgress: (event) => listener.progressed(event.done, gatherNote(event)),
      }),
    );
    turns += groups
      .flatMap(({ trajectories }) => trajectories)
      .reduce((sum, { metrics }) => sum + (metrics["moves"] ?? 0) + (metrics["refused"] ?? 0), 0);
    return groups;
  }

  return {
    log,
    clock,
    listener,
    signal,
    heldOut,
    playAll,
    turns: () => turns,
    /** The games of an evaluation that an earlier start of this run has made; null where there is none. */
    async played(label: string): Promise<TrajectoryGroup[] | null> {
      const made = log.records.some((one) => one.type === "evaluation" && one.label === label);
      if (!made) return null;
      const groups = await readGroups(join(log.folder, "trajectories", `eval-${label}.jsonl`));
      // Games that an earlier version of this program played may lack a metric.
      const whole = groups.every(({ trajectories }) =>
        trajectories.every(({ metrics }) => styleMetric("greedy") in metrics),
      );
      return whole && groups.length === options.verdictSeeds ? groups : null;
    },
    async evaluate(policy: Policy | ComparisonModel, label: string, seeds: number) {
      const scenarios = heldOut.slice(0, seeds);
      const groups = await playAll(policy, scenarios, 1, `evaluating ${label}`, "eval");
      const [score] = await log.evaluation(label, groups, { metrics: ["score", "won"] });
      if (score?.score) listener.evaluated(label, score.score.mean);
      return groups;
    },
  };
}

async function trainSteps(model: Model, options: RunOptions, run: Run): Promise<string | null> {
  const { groupsPerStep, groupSize, steps, evalEvery, seed } = options;
  const { listener, signal, heldOut, clock } = run;
  const scenarios = Array.from({ length: trainingSeeds }, (_, index) => ({ seed: index + 1 }));
  let adapter: string | null = null;
  for await (const batch of model.batches(scenarios, { groupsPerStep, steps, heldOut, seed })) {
    const label = `step ${batch.step + 1}/${steps}`;
    const step = run.log.step(batch);
    const played = await run.playAll(
      model,
      batch.scenarios,
      groupSize,
      `${label} playing`,
      "train",
    );
    const groups = step.gathered(
      options.shuffleRewards ? shuffleRewards(played, seed * 1_000_003 + batch.step) : played,
    );
    listener.began(`${label} training`, 1);
    const result = await clock.time("training", () =>
      model.train(groups, {
        batch,
        learningRate: rateOf(options, batch.step),
        warmupSteps: 2,
        optimizerSteps: 2,
        epsilonLow: 0.2,
        epsilonHigh: 0.28,
        scaleRewards: "group",
        // About what a game samples, so that the loss is a mean over tokens in size.
        normalizerTokens: 64,
        signal,
        onEvent: (event) => {
          step.onEvent(event);
          clock.onEvent(event);
          if (event.type === "progress") listener.progressed(event.done / event.total, "");
        },
      }),
    );
    adapter = result.checkpoint ?? adapter;
    listener.stepEnded({ steps, record: await step.trained(result), result });
    const done = batch.step + 1;
    if (evalEvery > 0 && done % evalEvery === 0 && done < steps) {
      await run.evaluate(model, `step-${done}`, Math.min(options.evalSeeds, options.verdictSeeds));
    }
  }
  return adapter;
}

/** Adam's steps are as large on noise as on a signal: at the full rate late steps only wander. */
export function rateOf(
  { learningRate, lastRate, steps }: Pick<RunOptions, "learningRate" | "lastRate" | "steps">,
  step: number,
): number {
  const done = steps > 1 ? step / (steps - 1) : 0;
  return learningRate * (1 - (1 - lastRate) * done);
}

function gatherNote(event: GatherEvent): string {
  if (event.type === "rollout-finished") return `score ${event.trajectory.metrics["score"] ?? 0}`;
  return event.exception.message;
}
