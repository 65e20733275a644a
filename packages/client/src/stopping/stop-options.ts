import { HoneError, refuseUnknownOptions, requireNumber } from "@hone/core";

/** Why a run may stop before its last step. */
export const stopReasons = ["target", "margin", "win-rate", "plateau"] as const;
export type StopReason = (typeof stopReasons)[number];

export const secondaryGoals = ["length", "latency", "cost"] as const;
/** Sampled tokens, milliseconds and dollars (`cost_usd` of its metrics) of a held-out rollout. Less is better. */
export type SecondaryGoal = (typeof secondaryGoals)[number];

/** What a run wants to reach, on evaluations of the same held-out scenarios. */
export interface Goals {
  /** Steps without a rise that make a plateau. @default 10 */
  plateau: number;
  /** The held-out score to reach. */
  target?: number | undefined;
  /** By how much the base is to be beaten: the whole 95% interval of the difference lies above it. */
  margin?: number | undefined;
  /** Share of the scenarios to win against the base's stored answers, from .5 to 1; ties count half. */
  winRate?: number | undefined;
  /**
   * What else counts. A number is the most that it may be where a goal is reached; true: on a plateau the run is told
   * to go on while it still falls.
   */
  secondary: Partial<Record<SecondaryGoal, number | true>>;
}

export const alarmCodes = [
  ...(["held_out_down", "perfect_scores", "same_output", "degenerate_text"] as const),
  "reward_jump",
] as const;
export type AlarmCode = (typeof alarmCodes)[number];

export const alarmActions = ["warn", "pause", "stop"] as const;
/** What an alarm does. */
export type AlarmAction = (typeof alarmActions)[number];

export interface Budget {
  /** Dollars: of the machine (`usdPerHour`), of judges, and `cost_usd` of the rollouts' metrics. */
  usd?: number | undefined;
  /** Seconds of the whole run times `gpus`. */
  gpuSeconds?: number | undefined;
  /** Steps after which it stops, of the run's `steps`: the learning rate's schedule is that of `steps`. */
  steps?: number | undefined;
  /** Price of the machine that serves and trains. @default 0 */
  usdPerHour?: number | undefined;
  /** GPUs that the run holds. @default 1 */
  gpus?: number | undefined;
}

export type GoalsGiven = Partial<Goals>;

export function readGoals(given: GoalsGiven): Goals {
  refuseUnknownOptions("The run's goals", given, [
    ...["plateau", "target", "margin", "winRate", "secondary"],
  ]);
  const { plateau = 10, target, margin, winRate, secondary = {} } = given;
  // Fewer steps are noise: the held-out score of a policy rests now and then while it learns.
  requireNumber("goals.plateau", plateau, { whole: true, least: 10 });
  if (target !== undefined) requireNumber("goals.target", target, {});
  if (margin !== undefined) requireNumber("goals.margin", margin, {});
  if (winRate !== undefined) requireNumber("goals.winRate", winRate, { least: 0.5, most: 1 });
  refuseUnknownOptions("The run's goals.secondary", secondary, secondaryGoals);
  for (const [name, limit] of Object.entries(secondary)) {
    if (limit !== true) requireNumber(`goals.secondary.${name}`, limit, { above: 0 });
  }
  return { plateau, target, margin, winRate, secondary };
}

/** What can stop a run has to be looked for in it. */
export function requireStoppable(
  stopWhen: readonly StopReason[],
  goals: Goals,
  evalEvery: number,
): void {
  requireNames("stopWhen", stopWhen, stopReasons);
  const wanted = { target: goals.target, margin: goals.margin, "win-rate": goals.winRate };
  for (const reason of stopWhen) {
    if (reason !== "plateau" && wanted[reason] === undefined) {
      const name = reason === "win-rate" ? "winRate" : reason;
      throw invalid(
        "stopWhen",
        `stopWhen names "${reason}", but goals.${name} says nothing of it. Give goals: { ${name}: … } too.`,
      );
    }
  }
  const asked = [...stopWhen, ...Object.keys(goals.secondary)];
  const set = Object.entries(wanted).filter(([, value]) => value !== undefined);
  if (evalEvery > 0 || (asked.length === 0 && set.length === 0)) return;
  throw invalid(
    "evalEvery",
    "Goals are read off held-out evaluations on the way, and there are none. Give evalEvery, such as 5.",
  );
}

export function requireNames(
  name: string,
  given: readonly string[],
  known: readonly string[],
): void {
  const unknown = Array.isArray(given)
    ? given.find((one) => !known.includes(one as string))
    : given;
  if (unknown === undefined) return;
  throw invalid(name, `${name} is a list of ${known.join(", ")}, not ${JSON.stringify(unknown)}.`);
}

export function checkBudget(budget: Budget): void {
  refuseUnknownOptions("The run's budget", budget, [
    ...["usd", "gpuSeconds", "steps", "usdPerHour", "gpus"],
  ]);
  const { usd, gpuSeconds, steps, usdPerHour, gpus } = budget;
  if (usd !== undefined) requireNumber("budget.usd", usd, { above: 0 });
  if (gpuSeconds !== undefined) requireNumber("budget.gpuSeconds", gpuSeconds, { above: 0 });
  if (steps !== undefined) requireNumber("budget.steps", steps, { whole: true, least: 0 });
  if (usdPerHour !== undefined) requireNumber("budget.usdPerHour", usdPerHour, { least: 0 });
  if (gpus !== undefined) requireNumber("budget.gpus", gpus, { whole: true, least: 1 });
}

function invalid(param: string, message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param });
}
