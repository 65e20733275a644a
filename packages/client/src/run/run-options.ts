import {
  HoneError,
  refuseUnknownOptions,
  requireNumber,
  requireObject,
  trainConfigKeys,
  trainConfigKeysOf,
} from "@hone/core";
import type { TrainConfig } from "@hone/core";
import type { Hone } from "../hone.ts";
import { readCurriculum, type CurriculumOptions } from "../training/curriculum.ts";
import { readFill, type FillOptions } from "../training/fill.ts";
import { defaultMaxStaleness, requireAhead } from "../training/play-ahead.ts";
import { checkSchedule, type Schedule } from "../training/schedule.ts";
import { checkTrainConfig } from "../training/train-config.ts";
import {
  alarmActions,
  alarmCodes,
  checkBudget,
  readGoals,
  requireNames,
  requireStoppable,
  type AlarmAction,
  type AlarmCode,
  type Budget,
  type GoalsGiven,
  type StopReason,
} from "../stopping/stop-options.ts";
import type { OtherModel } from "./other-models.ts";
import type { RunEvent } from "./run-event.ts";
import { leastHeldOut } from "./verdict.ts";

/** Of each member of the union. */
type WithoutRate<Config> = Config extends unknown ? Omit<Config, "learningRate"> : never;

/** How a run trains and judges. A task may have other defaults for its runs. */
export interface RunSettings {
  /** Training steps of the whole run. Batches that trained nothing do not count. @default 20 */
  steps: number;
  /** Scenarios of a step. Each becomes a group. @default 8 */
  groupsPerStep: number;
  /** Rollouts of one scenario, which are compared with one another. @default 8 */
  groupSize: number;
  /** Rollouts that run at the same time. @default 32 */
  concurrency: number;
  /** The temperature in training and in sampled evaluations. The rollout asks for it. @default 1 */
  temperature: number;
  /** How many tokens an answer may have. The rollout asks for it. @default 512 */
  answerTokens: number;
  /** @default 1e-4 */
  learningRate: number;
  /** @default { type: "constant" } */
  schedule: Schedule;
  /** Other options of the training step. */
  train: WithoutRate<TrainConfig>;
  /**
   * What decides. "greedy": the likeliest answers, with sampled ones beside them in the table. "sampled": those
   * alone, for what is only good or bad over many turns, as a game. @default "greedy"
   */
  verdict: "greedy" | "sampled";
  /** How many held-out scenarios decide: the first ones of the task. @default all */
  heldOut: number;
  /** Steps between two evaluations on the way; 0 for none. @default 0 */
  evalEvery: number;
  /** How many held-out scenarios these evaluations have. @default 64 */
  evalHeldOut: number;
  /**
   * Draws another scenario for each group of a step whose rewards are all equal, until enough of them differ or 3
   * times (`maxFactor`) the step's scenarios were drawn. @default false
   */
  fill: boolean | FillOptions;
  /**
   * Draws the scenarios by their success so far: those more often whose rollouts succeed now and then. Success is the
   * reward, from 0 to 1, or what `success` makes of a trajectory. @default false
   */
  curriculum: boolean | CurriculumOptions;
  /**
   * Plays the rollouts of the next batch while a step trains, or of so many batches. Rollouts are then up to `ahead`
   * policies old; no rollout older than `train.maxStaleness` is trained. @default false
   */
  overlap: boolean | OverlapOptions;
  /**
   * What the run wants to reach, on the evaluations on the way (`evalEvery`): a target, a margin over the base, a win
   * rate. It says when that is so, and when the score stands still. @default a plateau of 10 steps
   */
  goals: GoalsGiven;
  /** Which of these end the run; the others are advice. @default [] */
  stopWhen: readonly StopReason[];
  /**
   * What an alarm does: it is said ("warn"), the run is paused before the step trains ("pause", error `run_paused`),
   * or it ends with its verdict ("stop"). @default "warn"
   */
  onAlarm: AlarmAction;
  /** Alarms that are not raised. @default [] */
  ignoreAlarms: readonly AlarmCode[];
  /**
   * What the run may take, over all its starts: dollars, GPU-seconds, steps. It ends before the step that would pass
   * it, its verdict paid for, and goes on with a larger one. @default no limit
   */
  budget: Budget;
  /**
   * How long the run waits for a server that goes away, at a time; 0: not at all. What it waits is in the run's times
   * and in its budget. @unit ms @default 900,000: the server may load a large base
   */
  serverWaitMs: number;
  /** Seed of the adapter's first weights and of the order of the scenarios. @default 0 */
  seed: number;
}

export interface OverlapOptions {
  /** Batches that are played ahead at most. @default 1 */
  ahead?: number | undefined;
}

export interface RunOptions<Settings> extends Partial<RunSettings> {
  /** The model's name. A model that exists continues where it was. */
  name: string;
  /** Folder of metrics.jsonl, curves.svg, trajectories, totals.json and summary.json. @default runs/ and the name */
  out?: string | undefined;
  /** Values of the task's own settings. */
  settings?: Partial<Settings> | undefined;
  /** The control: shuffles the rewards within each group, so that they say nothing about the rollouts. */
  shuffleRewards?: boolean | undefined;
  /** Other models that answer the verdict's scenarios. */
  compare?: readonly OtherModel[] | undefined;
  /** Fingerprint of the task's file. A run continues only with the same one. @default none is known */
  taskSource?: string | undefined;
  /**
   * Goes on with a paused run although its task has changed, for a reward that was mended. The change is written into
   * watch.jsonl, and the base answers anew. Held-out scenarios and metric have to be the same.
   */
  acceptChange?: boolean | undefined;
  /** Allows a verdict on fewer than 16 held-out scenarios. */
  ungated?: boolean | undefined;
  /** @default new Hone() */
  hone?: Hone | undefined;
  onEvent?: ((event: RunEvent) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const defaults: RunSettings = {
  ...{ steps: 20, groupsPerStep: 8, groupSize: 8, concurrency: 32 },
  ...{ temperature: 1, answerTokens: 512, learningRate: 1e-4, schedule: { type: "constant" } },
  ...{ train: {}, verdict: "greedy", heldOut: Infinity, evalEvery: 0, evalHeldOut: 64, seed: 0 },
  ...{ fill: false, curriculum: false, overlap: false },
  ...{ goals: {}, stopWhen: [], onAlarm: "warn", ignoreAlarms: [], budget: {} },
  serverWaitMs: 15 * 60_000,
};

/** The options of `trainRun` that are no settings. */
export const ownNames: readonly string[] = [
  ...["name", "out", "settings", "shuffleRewards", "compare", "taskSource", "ungated", "hone"],
  ...["onEvent", "signal", "acceptChange"],
];

export const settingNames = Object.keys(defaults) as (keyof RunSettings)[];

type ForSettings = { options?: Partial<RunSettings> | undefined; heldOut: readonly unknown[] };

/**
 * The settings of a run. What is given wins over the task's defaults, and these win over ours. An option that is
 * undefined counts as not given.
 */
export function readSettings(task: ForSettings, given: Partial<RunSettings>): RunSettings {
  refuseUnknownOptions("trainRun()", given, [...settingNames, ...ownNames]);
  refuseUnknownOptions("The task's options", task.options ?? {}, settingNames);
  for (const name of ["train", "goals", "budget"] as const) {
    for (const [where, one] of [
      ["The task's options", task.options?.[name]],
      ["trainRun()", given[name]],
    ] as const) {
      if (one !== undefined) requireObject(where, one, `an object as ${name}`, name);
    }
  }
  const chosen = [task.options ?? {}, given].map((options) =>
    Object.fromEntries(
      settingNames.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])),
    ),
  );
  const settings: RunSettings = Object.assign({}, defaults, ...chosen, {
    train: trainOptions(task.options?.train, given.train),
    fill: switchedOn(task.options?.fill, given.fill),
    curriculum: switchedOn(task.options?.curriculum, given.curriculum),
    overlap: switchedOn(task.options?.overlap, given.overlap),
    goals: { ...task.options?.goals, ...given.goals },
    budget: { ...task.options?.budget, ...given.budget },
  });
  checkSettings(settings);
  checkStopping(settings);
  return {
    ...settings,
    heldOut: Math.min(settings.heldOut, task.heldOut.length),
  };
}

/** What is only switched on has the task's own options, where it has some. */
function switchedOn<Options extends object>(
  own: boolean | Options = false,
  given: boolean | Options = own,
): boolean | Options {
  return given === true && typeof own === "object" ? own : given;
}

/** Options of the task's that only its own objective has do not go along to another one. */
function trainOptions(
  own: Partial<TrainConfig> = {},
  given: Partial<TrainConfig> = {},
): Readonly<Record<string, unknown>> {
  const { type = "policy_gradient" } = own;
  if (given.type === undefined || given.type === type) return { ...own, ...given };
  const known = trainConfigKeysOf(given.type);
  const kept = Object.entries(own).filter(([name]) => known.includes(name));
  return { ...Object.fromEntries(kept), ...given };
}

function checkSettings(settings: RunSettings): void {
  for (const [name, least] of [
    ...([
      ["steps", 0],
      ["groupsPerStep", 1],
      ["groupSize", 2],
      ["concurrency", 1],
    ] as const),
    ...([
      ["answerTokens", 1],
      ["evalEvery", 0],
      ["evalHeldOut", 2],
      ["serverWaitMs", 0],
      ["seed", 0],
    ] as const),
  ]) {
    requireNumber(name, settings[name], { whole: true, least });
  }
  const { temperature, learningRate, verdict, heldOut, schedule } = settings;
  requireNumber("temperature", temperature, { above: 0 });
  requireNumber("learningRate", learningRate, { above: 0 });
  if (heldOut !== Infinity) requireNumber("heldOut", heldOut, { whole: true, least: 2 });
  if (verdict !== "greedy" && verdict !== "sampled") {
    throw invalid("verdict", '"greedy" or "sampled"', verdict);
  }
  checkSchedule("The run", schedule);
  checkTrain(settings.train);
  if (typeof settings.fill !== "boolean") readFill("The run's fill", settings.fill);
  if (settings.fill !== false && settings.train.type === "distill") {
    throw new HoneError(
      'fill replaces groups whose rewards are equal, and the objective "distill" trains these too. Leave fill out.',
      { code: "invalid_config", param: "fill" },
    );
  }
  readCurriculum("The run", settings.curriculum);
  readOverlap(settings);
}

function checkStopping(settings: RunSettings): void {
  const { onAlarm, ignoreAlarms, stopWhen, evalEvery, budget } = settings;
  requireStoppable(stopWhen, readGoals(settings.goals), evalEvery);
  requireNames("ignoreAlarms", ignoreAlarms, alarmCodes);
  if (!alarmActions.includes(onAlarm)) {
    throw invalid("onAlarm", '"warn", "pause" or "stop"', onAlarm);
  }
  checkBudget(budget);
}

/** How many batches are played ahead; 0 without overlap. */
export function readOverlap({ overlap, train }: Pick<RunSettings, "overlap" | "train">): number {
  if (overlap === false) return 0;
  if (overlap !== true) refuseUnknownOptions("The run's overlap", overlap, ["ahead"]);
  const { ahead = 1 } = overlap === true ? {} : overlap;
  requireAhead(ahead, train.maxStaleness ?? defaultMaxStaleness);
  return ahead;
}

/** Called before anything is played, because a step would refuse its options only after hours. */
function checkTrain(train: RunSettings["train"]): void {
  for (const [name, option] of [
    ["learningRate", "--lr"],
    ["schedule", "--schedule"],
  ] as const) {
    if (!Object.hasOwn(train, name)) continue;
    throw new HoneError(
      `The run's train has no ${name}: it is an option of the run itself. Give it as ${name} (${option}).`,
      { code: "unsupported_parameter", param: `train.${name}` },
    );
  }
  const names = trainConfigKeys.filter((name) => name !== "learningRate");
  refuseUnknownOptions("The run's train", train, names);
  checkTrainConfig("The run's train", train);
  if (train.type !== "distill") return;
  const { teacher } = train;
  if (teacher === "given" || (typeof teacher === "object" && "feedback" in teacher)) {
    throw new HoneError(
      "A run has no place for a teacher's logprobs or words of feedback. Take another teacher, or write the loop with model.batches().",
      { code: "invalid_config", param: "train.teacher" },
    );
  }
}

function invalid(name: string, wanted: string, value: unknown): HoneError {
  return new HoneError(`${name} must be ${wanted}, not ${JSON.stringify(value)}.`, {
    code: "invalid_config",
    param: name,
  });
}

export function requireEnough(heldOut: number, ungated: boolean | undefined): void {
  if (ungated === true || heldOut >= leastHeldOut) return;
  throw new HoneError(
    `${heldOut} held-out scenarios are too few for a verdict: give at least ${leastHeldOut}, or ungated (--ungated).`,
    { code: "invalid_config", param: "heldOut" },
  );
}
