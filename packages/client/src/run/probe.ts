import { once, setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import {
  askedAgain,
  deletedModelSchema,
  mulberry32,
  newId,
  refuseUnknownOptions,
  requireNumber,
  shuffledIndices,
} from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { optionalBoolean, optionalFunction, requireSignal } from "../argument-kinds.ts";
import { Hone, requireHone } from "../hone.ts";
import type { Model } from "../model.ts";
import { gather } from "../rollouts/gather.ts";
import { throwIfAborted } from "@hone/transport";
import { warn } from "../warn.ts";
import { readSettings, settingNames, type RunSettings } from "./run-options.ts";
import { readOwnSettings, requireTask, type Task, type TaskSettings } from "./task.ts";
import { rolloutWith } from "./task-rollout.ts";
import { estimateOf, type Estimate, type Measured } from "./probe-estimate.ts";
import { figuresOf, judgeNoise, type ProbeFigures } from "./probe-figures.ts";
import { judgeFigures, type Judged } from "./probe-verdict.ts";

export interface ProbeOptions<Settings> extends Partial<RunSettings> {
  /** Rollouts in all, as many groups of `groupSize` as they make, at least two. @default 64 */
  rollouts?: number | undefined;
  /** From which value of the task's metric on a rollout passes. @default 1, where all values lie between 0 and 1 */
  passAt?: number | undefined;
  /** Has a task's `score` judge the groups a second time in another order, to see its noise. @default true */
  judgeTwice?: boolean | undefined;
  /** Trains one step on the rollouts, to see what a step takes. @default true */
  trainStep?: boolean | undefined;
  /** Price of the machine that serves and trains. @unit US dollars */
  usdPerHour?: number | undefined;
  /** Values of the task's own settings. */
  settings?: Partial<Settings> | undefined;
  /** @default new Hone() */
  hone?: Hone | undefined;
  onEvent?: ((event: ProbeEvent) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** What it is at, and how far. */
export interface ProbeEvent {
  stage: "warming up" | "playing" | "judging" | "judging again" | "training";
  done: number;
  total: number;
}

export interface ProbeReport extends Judged {
  base: string;
  figures: ProbeFigures;
  /** Variance of two judgements over the variance within groups; null where none was judged twice. */
  noise: number | null;
  measured: Measured;
  estimate: Estimate;
}

/** How long a stop waits for a model that is being made, to delete it. */
const mostSecondsToStop = 5;

const ownOptions = [
  ...["rollouts", "passAt", "judgeTwice", "trainStep", "usdPerHour"],
  ...["settings", "hone", "onEvent", "signal"],
];

/**
 * Plays some rollouts of the base before a run is paid for, and says whether it would have something to learn from,
 * how long it would take and what it would cost. The model that it needs is made for it and deleted again.
 */
export async function probeTask<Scenario, Settings extends TaskSettings>(
  task: Task<Scenario, Settings>,
  options: ProbeOptions<Settings> = {},
): Promise<ProbeReport> {
  requireTask("probeTask()", task);
  refuseUnknownOptions("probeTask()", options, [...settingNames, ...ownOptions]);
  const { rollouts = 64, passAt, judgeTwice = true, trainStep = true, usdPerHour } = options;
  requireNumber("rollouts", rollouts, { whole: true, least: 2 });
  if (passAt !== undefined) requireNumber("passAt", passAt, {});
  if (usdPerHour !== undefined) requireNumber("usdPerHour", usdPerHour, { least: 0 });
  optionalBoolean("probeTask()", judgeTwice, "judgeTwice");
  optionalBoolean("probeTask()", trainStep, "trainStep");
  requireSignal("probeTask()", { signal: options.signal });
  optionalFunction("probeTask()", options.onEvent, "onEvent");
  if (options.hone !== undefined) requireHone("probeTask()", options.hone);
  const { signal = new AbortController().signal, onEvent = () => {} } = options;
  const settings = readSettings(task, runSettings(options));
  const own = readOwnSettings(task, options.settings);
  const scenarios = someOf(task.train, Math.ceil(rollouts / settings.groupSize), settings.seed);
  const hone = options.hone ?? new Hone();
  const name = `probe-${newId("op").slice(-12).toLowerCase()}`;
  const model = await madeModel(hone, { name, seed: settings.seed }, signal);
  try {
    const warmingUp = await warmUpSeconds(task, model, {
      how: { settings: own, seed: settings.seed, signal },
      onEvent,
    });
    const { base, maxModelLen } = await model.info({ signal });
    const { temperature, answerTokens } = settings;
    const how = { temperature, answerTokens, contextTokens: maxModelLen, settings: own };
    const playing = stopwatch();
    const played = await gather(model, rolloutWith(task, how), scenarios, {
      ...{ groupSize: settings.groupSize, concurrency: settings.concurrency, mode: "train" },
      // As a run has it. Failures are counted: a probe tells of them in place of ending with them.
      retries: 1,
      maxExceptions: scenarios.length * settings.groupSize,
      signal,
      onProgress: ({ done, total }) => onEvent({ stage: "playing", done, total }),
    });
    const measured: Measured = {
      ...{ warmingUp, playing: playing(), scoring: 0, training: null, judgeUsd: null },
    };
    let groups = played;
    const also: TrajectoryGroup[] = [];
    let noise: number | null = null;
    // Where every rollout has failed there is nothing to judge, and the verdict says what failed.
    if (task.score && played.some(({ trajectories }) => trajectories.length > 0)) {
      onEvent({ stage: "judging", done: 0, total: 1 });
      // A judge listens to it in each request that waits.
      setMaxListeners(0, signal);
      const scoring = stopwatch();
      const { concurrency } = settings;
      const scoreHow = { mode: "train", policy: model, concurrency, signal } as const;
      const alsoTrain = (more: readonly TrajectoryGroup[]) => void also.push(...more);
      groups = await task.score(played, { ...scoreHow, alsoTrain });
      measured.scoring = scoring();
      measured.judgeUsd = judgeCost(groups);
      if (judgeTwice) {
        onEvent({ stage: "judging again", done: 0, total: 1 });
        const again = await task.score(played.map(askedAgain), { ...scoreHow, alsoTrain() {} });
        noise = judgeNoise(groups, again);
      }
    }
    const metric = task.metric ?? "reward";
    const relative = groups.some(({ trajectories }) =>
      trajectories.some(({ metrics }) => metrics["ruler_score"] !== undefined),
    );
    const figures = figuresOf(groups, { metric, at: passAt, relative }, settings.groupSize);
    const learns = figures.varied.groups > 0 || settings.train.type === "distill";
    if (trainStep && learns) {
      measured.training = await stepSeconds(model, [...groups, ...also], settings, {
        onEvent,
        signal,
      });
    }
    return {
      ...judgeFigures(figures, noise, settings.train),
      ...{ base, figures, noise, measured },
      estimate: estimateOf(figures, measured, settings, usdPerHour),
    };
  } finally {
    await discard(model);
  }
}

/** Where it is stopped meanwhile, the server may make the model all the same: then it is deleted again. */
async function madeModel(
  hone: Hone,
  options: { name: string; seed: number },
  signal: AbortSignal,
): Promise<Model> {
  throwIfAborted(signal);
  const making = hone.model(options);
  const stopped = new AbortController();
  const stopping = once(signal, "abort", { signal: stopped.signal }).catch(() => {});
  await Promise.race([making.catch(() => {}), stopping]);
  stopped.abort();
  if (!signal.aborted) return await making;
  const deleted = making.then(discard, () => {});
  await Promise.race([deleted, delay(mostSecondsToStop * 1000, undefined, { ref: false })]);
  throw signal.reason;
}

/** 0 where the task does not warm up, or had nothing to train. */
async function warmUpSeconds<Scenario, Settings extends TaskSettings>(
  { warmUp }: Task<Scenario, Settings>,
  model: Model,
  {
    how,
    onEvent,
  }: {
    how: { settings: Settings; seed: number; signal: AbortSignal };
    onEvent: (event: ProbeEvent) => void;
  },
): Promise<number> {
  if (!warmUp) return 0;
  onEvent({ stage: "warming up", done: 0, total: 1 });
  const warming = stopwatch();
  return (await warmUp(model, how)) === false ? 0 : warming();
}

function runSettings(options: Partial<RunSettings>): Partial<RunSettings> {
  return Object.fromEntries(settingNames.map((key) => [key, options[key]]));
}

function someOf<Scenario>(all: readonly Scenario[], wanted: number, seed: number): Scenario[] {
  return shuffledIndices(all.length, mulberry32(seed))
    .slice(0, Math.max(2, wanted))
    .map((index) => all[index] as Scenario);
}

/** Null where the step trained nothing: it says nothing about what one takes. */
async function stepSeconds(
  model: Model,
  groups: readonly TrajectoryGroup[],
  { train, learningRate }: RunSettings,
  { onEvent, signal }: { onEvent: (event: ProbeEvent) => void; signal: AbortSignal },
): Promise<number | null> {
  onEvent({ stage: "training", done: 0, total: 1 });
  const training = stopwatch();
  const result = await model.train(groups, {
    ...train,
    ...{ learningRate, signal },
    onEvent(event) {
      if (event.type === "progress") onEvent({ stage: "training", ...event });
    },
  });
  return result.trained ? training() : null;
}

/** Also after an interruption, so with a limit of its own. A model that stays is told of, and can be deleted by hand. */
async function discard({ name, transport }: Model): Promise<void> {
  try {
    await transport.json("DELETE", `/v1/models/${name}?force=true`, deletedModelSchema, {
      signal: AbortSignal.timeout(60_000),
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    warn(`The probe's model ${name} could not be deleted: ${why}`);
  }
}

function judgeCost(groups: readonly TrajectoryGroup[]): number | null {
  const costs = groups.flatMap(({ metrics }) => metrics["ruler/cost_usd"] ?? []);
  return costs.length === 0 ? null : costs.reduce((sum, cost) => sum + cost, 0);
}

/** @unit s */
function stopwatch(): () => number {
  const began = performance.now();
  return () => (performance.now() - began) / 1000;
}
