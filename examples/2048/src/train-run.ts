import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gather, openRunLog, readGroups, shuffleRewards } from "@hone/client";
import type {
  ComparisonModel,
  GatherEvent,
  Hone,
  Model,
  Policy,
  RunLog,
  StepRecord,
  TrainResult,
  TrajectoryGroup,
} from "@hone/client";
import { checkOthers, playOthers, type OthersPlayed } from "./others.ts";
import type { OtherModel } from "./providers.ts";
import { createRollout } from "./rollout.ts";
import type { Scenario } from "./rollout.ts";
import { bestStyle, styleMetric, styleNames } from "./styles.ts";
import { summarize, type RunSummary } from "./summary.ts";
import { openTotals, type RunTotals } from "./totals.ts";

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
  others: readonly OtherModel[];
  /** Folder of metrics.jsonl, curves.svg, trajectories, totals.json and summary.json. */
  out: string;
}

export interface StepReport {
  steps: number;
  record: StepRecord;
  result: TrainResult;
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
  const { name, size, target, seed, steps, answerTokens, verdictSeeds, others, out } = options;
  const model = await hone.model({ name, seed }, { signal });
  const { maxModelLen, base } = await model.info({ signal });
  const heldOut = Array.from({ length: verdictSeeds }, (_, i) => ({ seed: firstEvalSeed + i }));
  const seeds = heldOut.map((scenario) => scenario.seed);
  const ceiling = bestStyle({ size, target }, seeds);
  const { shuffleRewards: shuffled } = options;
  const log = await openRunLog(out, {
    settings: { name, base, size, target, seed, answerTokens, shuffleRewards: shuffled },
    references: { score: { [`${ceiling.name} style`]: ceiling.score } },
    panels: {
      "share of the moves that a style would choose too": Object.fromEntries(
        styleNames.map((style) => [styleMetric(style), style]),
      ),
    },
  });
  // A run that is under way goes on without them, and its summary says so.
  if (log.records.length === 0) await checkOthers(others, { size, target }, signal);
  const totals = await openTotals(join(out, "totals.json"));
  const run = createRun({ options, heldOut, log, totals, listener, signal, maxModelLen });
  try {
    const before = await run.evaluateOnce(model.at(0), "base");
    await trainSteps(model, options, run);
    const after = await run.evaluate(model, "trained", verdictSeeds);
    const adapter = await model.checkpoint({ signal });
    const conclude = async (played: OthersPlayed): Promise<RunSummary> => {
      const summary = summarize({
        ...{ before, after, name, others: played, totals: totals.soFar() },
        run: { steps, seed, ceiling, adapter, out, curves: log.lines() },
      });
      await writeFile(join(out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
      return summary;
    };
    // The verdict is written down before other models play: whatever becomes of them, it stands.
    const verdict = await conclude({ evaluations: {}, failures: {} });
    if (others.length === 0) return verdict;
    const play = async (other: OtherModel) => await run.evaluateOther(other);
    return await conclude(await playOthers(others, play, signal));
  } finally {
    await totals.save();
  }
}

/** A model that thinks before each of a hundred moves takes hours, and a game of it is paid for. */
const patient = { timeoutMs: 12 * 3_600_000, retries: 0 };

type Run = ReturnType<typeof createRun>;

function createRun(given: {
  options: RunOptions;
  heldOut: readonly Scenario[];
  log: RunLog;
  totals: RunTotals;
  listener: RunListener;
  signal: AbortSignal;
  maxModelLen: number;
}) {
  const { options, heldOut, log, totals, listener, signal } = given;
  const { verdictSeeds } = options;
  const play = createRollout({ ...options, contextTokens: given.maxModelLen });

  async function playAll(
    policy: Policy | ComparisonModel,
    scenarios: readonly Scenario[],
    how: {
      task: string;
      groupSize: number;
      mode: "train" | "eval";
      rollout?: typeof play;
      limits?: { timeoutMs: number; retries: number };
    },
  ): Promise<TrajectoryGroup[]> {
    const { task, groupSize, mode, rollout = play, limits = { retries: 1 } } = how;
    listener.began(task, scenarios.length * groupSize);
    const groups = await totals.clock.time(mode === "train" ? "playing" : "evaluating", () =>
      gather(policy, rollout, scenarios, {
        groupSize,
        mode,
        concurrency: options.concurrency,
        maxExceptions: 0.1,
        ...limits,
        signal,
        onProgress: (event) => listener.progressed(event.done, gatherNote(event)),
      }),
    );
    const answers = groups
      .flatMap(({ trajectories }) => trajectories)
      .map(({ metrics }) => (metrics["moves"] ?? 0) + (metrics["refused"] ?? 0));
    totals.addTurns(answers.reduce((sum, count) => sum + count, 0));
    return groups;
  }

  async function evaluate(
    policy: Policy | ComparisonModel,
    label: string,
    seeds: number,
    how: Pick<Parameters<typeof playAll>[2], "rollout" | "limits"> = {},
  ): Promise<TrajectoryGroup[]> {
    const scenarios = heldOut.slice(0, seeds);
    const task = `evaluating ${label}`;
    const groups = await playAll(policy, scenarios, { ...how, task, groupSize: 1, mode: "eval" });
    const [score] = await log.evaluation(label, groups, { metrics: ["score", "won"] });
    await totals.save();
    if (score?.score) listener.evaluated(label, score.score.mean);
    return groups;
  }

  /** The games of an evaluation that an earlier start of this run has made; null where there is none. */
  async function played(label: string): Promise<TrajectoryGroup[] | null> {
    const made = log.records.findLast((one) => one.type === "evaluation" && one.label === label);
    if (made?.type !== "evaluation") return null;
    const file = made.file ?? `eval-${label}.jsonl`;
    const groups = await readGroups(join(log.folder, "trajectories", file));
    // Games that an earlier version of this program played may lack a metric.
    const whole = groups.every(({ trajectories }) =>
      trajectories.every(({ metrics }) => styleMetric("greedy") in metrics),
    );
    return whole && groups.length >= verdictSeeds ? groups.slice(0, verdictSeeds) : null;
  }

  return {
    log,
    totals,
    listener,
    signal,
    heldOut,
    playAll,
    evaluate,
    /** Unless an earlier start of this run has made it. */
    async evaluateOnce(policy: Policy, label: string): Promise<TrajectoryGroup[]> {
      return (await played(label)) ?? (await evaluate(policy, label, verdictSeeds));
    },
    /** Its games end as they end: how much of them fits is for its own API to say. */
    async evaluateOther({ label, model, answerTokens }: OtherModel): Promise<TrajectoryGroup[]> {
      const made = await played(label);
      // A model that had too little room for its answers plays again with more.
      const same = made?.every(({ trajectories }) =>
        trajectories.every(({ metadata }) => metadata["answerTokens"] === answerTokens),
      );
      if (made && same) return made;
      const rollout = createRollout({ ...options, contextTokens: null, answerTokens });
      return await evaluate(model, label, verdictSeeds, { rollout, limits: patient });
    },
  };
}

async function trainSteps(model: Model, options: RunOptions, run: Run): Promise<void> {
  const { groupsPerStep, groupSize, steps, evalEvery, seed } = options;
  const { listener, signal, heldOut, totals } = run;
  const scenarios = Array.from({ length: trainingSeeds }, (_, index) => ({ seed: index + 1 }));
  for await (const batch of model.batches(scenarios, { groupsPerStep, steps, heldOut, seed })) {
    const label = `step ${batch.trained + 1}/${steps}`;
    const step = run.log.step(batch);
    const task = `${label} playing`;
    const played = await run.playAll(model, batch.scenarios, { task, groupSize, mode: "train" });
    const groups = step.gathered(
      options.shuffleRewards ? shuffleRewards(played, seed * 1_000_003 + batch.step) : played,
    );
    listener.began(`${label} training`, 1);
    const result = await totals.clock.time("training", () =>
      model.train(groups, {
        batch,
        learningRate: rateOf(options, batch.trained),
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
          totals.clock.onEvent(event);
          if (event.type === "progress") listener.progressed(event.done / event.total, "");
        },
      }),
    );
    const record = await step.trained(result);
    await totals.save();
    listener.stepEnded({ steps, record, result });
    if (!result.trained) continue;
    const done = batch.trained + 1;
    if (evalEvery > 0 && done % evalEvery === 0 && done < steps) {
      await run.evaluate(model, `step-${done}`, Math.min(options.evalSeeds, options.verdictSeeds));
    }
  }
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
