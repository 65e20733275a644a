import { mulberry32 } from "@hone/core";
import { bootstrapInterval, fewestForInterval, mean } from "../statistics.ts";
import { percent, short } from "./figure-text.ts";
import {
  fewestOfPlateau,
  phasesOf,
  plateauWindow,
  trendOf,
  type FixedEvaluation,
  type Phase,
} from "./phases.ts";
import type { Goals, SecondaryGoal, StopReason } from "./stop-options.ts";

/** An evaluation with what the rollouts took, on average. */
export interface Evaluated extends FixedEvaluation {
  /** Sampled tokens, milliseconds and dollars of a rollout; absent where nothing is known of it. */
  secondary: Partial<Record<SecondaryGoal, number>>;
  /** Of the frozen baseline's answers, by scenario: 1 better, 0 worse, .5 neither. Absent: by scores. */
  wins?: ReadonlyMap<string, number> | undefined;
}

export interface StopAdvice {
  reason: StopReason;
  message: string;
}

export interface Advice {
  phases: Phase[];
  /** Reasons to stop now, the strongest first. */
  reasons: StopAdvice[];
  /** Why there is no advice although there could be, or what to look at before one stops. */
  notes: string[];
}

/** `evaluations` begin with the base's and hold one for each policy, of the same scenarios. */
export function adviseStop(evaluations: readonly Evaluated[], goals: Goals): Advice {
  const { plateau } = goals;
  const [base] = evaluations;
  const now = evaluations.at(-1);
  const phases = phasesOf(evaluations, plateau);
  if (!base || !now || evaluations.length < 2) return { phases, reasons: [], notes: [] };
  const before = evaluations.at(-2);
  const notes: string[] = [];
  const reasons = [
    targetOf(now, before, goals),
    marginOf(base, now, goals),
    winRateOf(base, now, goals),
  ].flatMap((one) => one ?? []);
  const beyond = beyondLimits(now, goals);
  if (reasons.length > 0 && beyond.length > 0) {
    notes.push(`A goal is reached, but not yet with ${beyond.join(" and ")}.`);
    reasons.length = 0;
  }
  const level = plateauOf(evaluations, goals);
  const falling = level ? stillFalling(evaluations, goals) : [];
  if (level && falling.length > 0) {
    notes.push(`${level.message} ${falling.join(" and ")} still fall: going on gains that.`);
  } else if (level) reasons.push(level);
  return { phases, reasons, notes };
}

function targetOf(
  now: Evaluated,
  before: Evaluated | undefined,
  { target }: Goals,
): StopAdvice | null {
  if (target === undefined) return null;
  const scores = [...now.scores.values()];
  const { low } = intervalOf(scores);
  const reached = mean(scores);
  // The first of many noisy evaluations that lies above a line is above it by luck.
  const twice =
    reached >= target &&
    before !== undefined &&
    before.step > 0 &&
    mean([...before.scores.values()]) >= target;
  if (!twice && !(low >= target)) return null;
  return {
    reason: "target",
    message: `The target of ${short(target)} is reached: ${short(reached)} after step ${now.step}${twice ? ", and in the evaluation before" : ""}.`,
  };
}

function marginOf(base: Evaluated, now: Evaluated, { margin }: Goals): StopAdvice | null {
  if (margin === undefined || now.step === 0) return null;
  const { low, high } = differenceOf(base, now);
  if (!(low >= margin)) return null;
  return {
    reason: "margin",
    message: `The base is beaten by the margin of ${short(margin)}: the 95% interval of the difference is [${short(low)}, ${short(high)}] after step ${now.step}.`,
  };
}

/** The 95% interval of the difference, over the scenarios that both have. */
export function differenceOf(base: FixedEvaluation, now: FixedEvaluation) {
  const differences = [...now.scores].flatMap(([key, score]) => {
    const from = base.scores.get(key);
    return from === undefined ? [] : [score - from];
  });
  return intervalOf(differences);
}

function winRateOf(base: Evaluated, now: Evaluated, { winRate }: Goals): StopAdvice | null {
  if (winRate === undefined || now.step === 0) return null;
  const wins = [...(now.wins ?? winsByScore(base, now)).values()];
  if (wins.length === 0) return null;
  const rate = mean(wins);
  const { low, high } = intervalOf(wins);
  if (!(rate >= winRate && low > 0.5)) return null;
  return {
    reason: "win-rate",
    message: `It wins ${percent(rate)} of the scenarios against the frozen baseline [${percent(low)}, ${percent(high)}]; ${percent(winRate)} were asked for.`,
  };
}

/** Better than the base's own answer to the same scenario. */
function winsByScore(base: FixedEvaluation, now: FixedEvaluation): Map<string, number> {
  const wins = new Map<string, number>();
  for (const [key, score] of now.scores) {
    const from = base.scores.get(key);
    if (from !== undefined) wins.set(key, score > from ? 1 : score < from ? 0 : 0.5);
  }
  return wins;
}

/** Null before so many steps, and where it rises or falls. */
function plateauOf(evaluations: readonly Evaluated[], { plateau }: Goals): StopAdvice | null {
  const window = plateauWindow(evaluations, plateau);
  const [from, to] = [window[0]?.step ?? 0, window.at(-1)?.step ?? 0];
  if (window.length < fewestOfPlateau || to - from < plateau) return null;
  const { direction, rise, standardError } = trendOf(window);
  if (direction !== "level") return null;
  const risen = phasesOf(evaluations, plateau).some(({ name }) => name === "rising");
  const what = `The held-out score has not moved from step ${from} to ${to} (${signed(rise)} ± ${short(standardError)}).`;
  return {
    reason: "plateau",
    message: risen
      ? `${what} What this task, reward and base can give seems to be learnt.`
      : `${what} It has not risen since the beginning: mend the reward or the learning rate rather than wait.`,
  };
}

/** Secondary goals that the newest evaluation does not keep to. */
function beyondLimits({ secondary }: Evaluated, goals: Goals): string[] {
  return Object.entries(goals.secondary).flatMap(([name, limit]) => {
    const value = secondary[name as SecondaryGoal];
    if (typeof limit !== "number" || value === undefined || value <= limit) return [];
    return [`${name} of at most ${short(limit)} (it is ${short(value)})`];
  });
}

/** Secondary goals that fell by more than 2% over the plateau, and whose newest value is the least. */
function stillFalling(evaluations: readonly Evaluated[], goals: Goals): SecondaryGoal[] {
  const steps = new Set(plateauWindow(evaluations, goals.plateau).map(({ step }) => step));
  const window = evaluations.filter(({ step }) => steps.has(step));
  return (Object.keys(goals.secondary) as SecondaryGoal[]).filter((name) => {
    const values = window.flatMap(({ secondary }) => secondary[name] ?? []);
    const [first, last] = [values[0], values.at(-1)];
    if (first === undefined || last === undefined || values.length < fewestOfPlateau) return false;
    return last < 0.98 * first && last <= Math.min(...values);
  });
}

function intervalOf(values: readonly number[]): { low: number; high: number } {
  if (values.length < fewestForInterval) return { low: -Infinity, high: Infinity };
  return bootstrapInterval(values, 2000, mulberry32(0));
}

const signed = (value: number) => `${value < 0 ? "" : "+"}${short(value)}`;
