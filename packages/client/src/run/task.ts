import { HoneError, kindOf, refuseUnknownOptions, requireObject } from "@hone/core";
import type { RolloutMode, Trajectory, TrajectoryGroup } from "@hone/core";
import type { Model } from "../model.ts";
import type { ComparisonModel } from "../rollouts/comparison-model.ts";
import type { Policy } from "../rollouts/policy.ts";
import type { RolloutModel } from "../rollouts/rollout-model.ts";
import type { RolloutResult } from "../rollouts/rollout-outcome.ts";
import type { CurvesOptions } from "../run-log/curves.ts";
import { requireApart } from "../training/scenarios.ts";
import { ownNames, settingNames, type RunSettings } from "./run-options.ts";
import { taskChanges } from "./task-fingerprint.ts";

/** Settings of a task's own, by name: each is an option of `npx @hone/client train`, with this default. */
export type TaskSettings = Readonly<Record<string, string | number | boolean>>;

/** What a rollout is told besides its scenario. */
export interface RolloutHow<Settings extends TaskSettings = TaskSettings> {
  /** The temperature to ask for: 0 in a greedy evaluation, otherwise the run's `temperature`. */
  temperature: number;
  /** How many tokens to ask for as the limit of an answer: the run's `answerTokens`. */
  answerTokens: number;
  /** How many tokens a conversation may have. Null if another model plays, because only its API knows. */
  contextTokens: number | null;
  /**
   * For the requests of this rollout: each rollout of a run has another one, and the same when the run was cut off and
   * plays it again. A rollout with several requests adds their number. Null or absent outside of a run, and if another
   * model plays.
   */
  seed?: number | null | undefined;
  settings: Settings;
}

/** What a task's `score` is told besides the groups. */
export interface ScoreHow {
  mode: RolloutMode;
  /** Who played the groups, for a `score` that asks the same policy: `gather` takes it. */
  policy: Policy | ComparisonModel;
  /** Rollouts at the same time: the run's `concurrency`. */
  concurrency: number;
  /**
   * Has further groups trained in the step of these ones, in the same `model.train` call, such as judgements that the
   * policy gave. They count neither for `fill` nor for a curriculum, and the run log keeps them apart by their
   * `metadata.kind` (a text). Throws `invalid_config` in an evaluation, which trains nothing.
   */
  alsoTrain(groups: readonly TrajectoryGroup[]): void;
  /**
   * For a judge that samples: another one for each batch of a run, and the same when the run was cut off and has the
   * batch judged again. After a judgement that failed it is another one. Null or absent outside of a run.
   */
  seed?: number | null | undefined;
  signal: AbortSignal;
}

/**
 * A judge that never trains. It says how good a rollout is, by a scale of its own that is the same in every step;
 * null where it cannot tell. `costUsd` is what it paid, for the run's budget.
 */
export type HeldOutJudge<Scenario> = (
  trajectory: Trajectory,
  how: { scenario: Scenario; signal: AbortSignal },
) => Scored | Promise<Scored>;

/** 1 where the answer is better than the frozen baseline's, 0 where it is worse, .5 where it is neither. */
export type PreferBaseline<Scenario> = (
  trajectory: Trajectory,
  baseline: Trajectory,
  how: { scenario: Scenario; signal: AbortSignal },
) => Scored | Promise<Scored>;

type Scored = number | null | { score: number | null; costUsd?: number };

/** What is learnt, and how it is judged. The run is `trainRun`'s. */
export interface Task<Scenario, Settings extends TaskSettings = TaskSettings> {
  /** Scenarios to train on: plain data. */
  train: readonly Scenario[];
  /** Scenarios to judge by. None of them may be among those to train on. */
  heldOut: readonly Scenario[];
  /** One episode. */
  rollout: (
    model: RolloutModel,
    scenario: Scenario,
    how: RolloutHow<Settings>,
  ) => RolloutResult | Promise<RolloutResult>;
  /**
   * Trains on something else between the base's evaluation and the first step, as on demonstrations with `model.sft`.
   * It is called at each start of the run, also of one that goes on: `sft` and `dpo` know what they have done. Unless
   * it gives false, because it trains nothing, the held-out scenarios are answered once after it.
   */
  warmUp?:
    | ((
        model: Model,
        how: { settings: Settings; seed: number; signal: AbortSignal },
      ) => boolean | void | Promise<boolean | void>)
    | undefined;
  /**
   * Gives rewards to rollouts that returned null, or other ones: a judge, reward functions. It gets all groups of
   * a step, and those of an evaluation too (`mode: "eval"`, one rollout a scenario). A judge that compares the
   * rollouts of a group has nothing to compare there: give the groups back, and let a metric decide.
   */
  score?:
    | ((groups: TrajectoryGroup[], how: ScoreHow) => TrajectoryGroup[] | Promise<TrajectoryGroup[]>)
    | undefined;
  /**
   * Asked about some rollouts of each step and about all held-out answers, and never trained on: a policy that games
   * the reward does worse by it (alarm `held_out_down`). Where it throws, its score is missing.
   */
  heldOutJudge?: HeldOutJudge<Scenario> | undefined;
  /**
   * Which of two answers to a held-out scenario is better, for the win rate against the base's stored answers.
   * @default by the task's metric
   */
  prefer?: PreferBaseline<Scenario> | undefined;
  /** What decides whether it learnt: `reward`, or one of the rollouts' metrics. @default "reward" */
  metric?: string | undefined;
  /** The kind of a scenario: the summary's table has a row for each. In a run that passes, no kind got worse. */
  slice?: ((scenario: Scenario) => string | number) | undefined;
  /** Whether each epoch has an order of its own. @default true */
  shuffle?: boolean | undefined;
  settings?: Settings | undefined;
  /** Throws an error if these values cannot be played. Its message says which ones can. */
  checkSettings?: ((settings: Settings) => void) | undefined;
  /** Defaults of its runs, if others than those of trainRun suit it. */
  options?: Partial<RunSettings> | undefined;
  /** What curves.svg draws besides. */
  curves?: ((settings: Settings) => TaskCurves) | undefined;
}

/** Levels that held-out scores are compared with, panels of metrics, and more held-out scores. */
export interface TaskCurves extends CurvesOptions {
  /** Metrics of the rollouts whose held-out scores have a curve too, beside `metric` and the reward. */
  heldOut?: readonly string[] | undefined;
}

const taskKeys = [
  ...["train", "heldOut", "rollout", "warmUp", "score", "metric", "slice", "shuffle"],
  ...["settings", "checkSettings", "options", "curves", "heldOutJudge", "prefer"],
] as const;

const settingKinds = new Set(["string", "number", "boolean"]);

/** Gives the task back, checked: whatever is missing or wrong is named at once. */
export function defineTask<Scenario, const Settings extends TaskSettings = TaskSettings>(
  task: Task<Scenario, Widened<Settings>> & { settings?: Settings | undefined },
): Task<Scenario, Widened<Settings>> {
  requireTask("defineTask()", task);
  return task;
}

/** The types of the settings by those of their defaults: where the default is 3, any number may be given. */
type Widened<Settings> = {
  readonly [Name in keyof Settings]: Settings[Name] extends number
    ? number
    : Settings[Name] extends boolean
      ? boolean
      : string;
};

export function requireTask(where: string, given: unknown): void {
  requireObject(where, given, "a task, an object with train, heldOut and rollout", "task");
  refuseUnknownOptions(where, given, taskKeys);
  const { train, heldOut, rollout, ...rest } = given as Record<string, unknown>;
  const { warmUp, score, metric, slice, shuffle, settings, checkSettings, options, curves } = rest;
  const { heldOutJudge, prefer } = rest;
  const isFunction = (value: unknown) => value === undefined || typeof value === "function";
  const isObject = (value: unknown) =>
    value === undefined || (typeof value === "object" && value !== null);
  const isSettings = (value: unknown) =>
    isObject(value) && Object.values(value ?? {}).every((one) => settingKinds.has(typeof one));
  const missing = [
    Array.isArray(train) && train.length > 0 ? "" : "train, a list of scenarios",
    Array.isArray(heldOut) && heldOut.length > 1 ? "" : "heldOut, a list of at least two scenarios",
    typeof rollout === "function" ? "" : "rollout, a function",
    isFunction(warmUp) ? "" : "warmUp, a function",
    isFunction(score) ? "" : "score, a function",
    isFunction(heldOutJudge) ? "" : "heldOutJudge, a function",
    isFunction(prefer) ? "" : "prefer, a function",
    metric === undefined || (typeof metric === "string" && metric !== "") ? "" : "metric, a text",
    isFunction(slice) ? "" : "slice, a function",
    shuffle === undefined || typeof shuffle === "boolean" ? "" : "shuffle, true or false",
    isSettings(settings) ? "" : "settings, an object of texts, numbers, true or false",
    isFunction(checkSettings) ? "" : "checkSettings, a function",
    isObject(options) ? "" : "options, an object",
    isFunction(curves) ? "" : "curves, a function",
  ].filter(Boolean);
  if (missing.length > 0) {
    throw new HoneError(`${where}: a task needs ${missing.join("; and ")}.`, {
      code: "invalid_config",
      param: "task",
    });
  }
  requireFreeNames(where, Object.keys((settings as object | undefined) ?? {}));
  requireApart(train as unknown[], heldOut as unknown[]);
}

/** The values of the task's own settings. What the task itself says against them is an error before the run starts. */
export function readOwnSettings<Settings extends TaskSettings>(
  task: Pick<Task<never, Settings>, "settings" | "checkSettings">,
  given: Partial<Settings> = {},
): Settings {
  refuseUnknownOptions("The task's settings", given, Object.keys(task.settings ?? {}));
  // As everywhere, undefined counts as not given.
  const known = Object.entries(given).filter(([, value]) => value !== undefined);
  const settings = { ...task.settings, ...Object.fromEntries(known) } as Settings;
  for (const [name, usual] of Object.entries(task.settings ?? {})) {
    requireKind(name, settings[name], usual);
  }
  try {
    task.checkSettings?.(settings);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new HoneError(message, { code: "invalid_config", param: "settings", cause: error });
  }
  return settings;
}

/** A setting is of the kind of its default. */
function requireKind(name: string, value: unknown, usual: string | number | boolean): void {
  if (typeof value === typeof usual && !Number.isNaN(value)) return;
  const wanted = { string: "a text", number: "a number", boolean: "true or false" };
  throw new HoneError(
    `The task's setting ${name} is ${wanted[typeof usual as keyof typeof wanted]}, not ${kindOf(value)}.`,
    { code: "invalid_config", param: `settings.${name}` },
  );
}

/** Names that a run, its stored settings or its command line use for something else. */
const takenNames = new Set<string>([
  ...[...settingNames, ...ownNames, ...Object.keys(taskChanges), "base"],
  ...["resume", "lr", "lastRate", "compareKeyEnv", "compareTokens", "serverData", "serverWait"],
  ...["help", "goalTarget", "goalMargin", "goalWinRate", "goalPlateau", "goalSecondary"],
  ...["ignoreAlarm", "usdPerHour", "gpus"],
  ...["budgetUsd", "budgetGpuSeconds", "budgetSteps"],
]);

function requireFreeNames(where: string, names: readonly string[]): void {
  const taken = names.find((name) => takenNames.has(name) || /^no[A-Z]/.test(name));
  if (taken === undefined) return;
  throw new HoneError(
    `${where}: a setting cannot be called "${taken}", which is a name of the run or its command line. Choose another name.`,
    { code: "invalid_config", param: `settings.${taken}` },
  );
}
