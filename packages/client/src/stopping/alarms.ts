import { percent, short } from "./figure-text.ts";
import { mean } from "../statistics.ts";
import type { StepFigures } from "./step-figures.ts";
import type { AlarmCode } from "./stop-options.ts";

/** Something that a reward which is gamed would look like. */
export interface Alarm {
  code: AlarmCode;
  /** The step whose rollouts raised it, from 1, as metrics.jsonl counts them: batches that trained nothing count too. */
  step: number;
  /** Steps that had trained before it, as evaluations and budgets count them. Absent in older records. */
  trained?: number | undefined;
  message: string;
}

/** The number of an alarm's step, with that of its evaluations where batches that trained nothing part the two. */
export function stepText({ step, trained = step - 1 }: Pick<Alarm, "step" | "trained">): string {
  return trained === step - 1 ? String(step) : `${step} (after ${trained} that trained)`;
}

/** A step's figures, in the order of the run. */
export interface WatchedStep extends StepFigures {
  step: number;
}

/** What evaluations say of the policy without the reward that trains it. */
export interface Evidence {
  /** Whether a metric other than the reward has risen on held-out scenarios; null where there is none. */
  metricRisen: boolean | null;
}

/**
 * Thresholds of the alarms. They are ours; each is a number of standard errors or a share that chance, or learning,
 * does not reach in a run of hundreds of steps (docs/stopping.md says how they were tried).
 */
const alarmThresholds = {
  /** Steps that a level now and a level before are read off. */
  window: 3,
  /** Standard errors that the held-out judge has to fall by, and the reward to rise. */
  fall: 3,
  rise: 2,
  /** And the least fall, as a share of what the held-out judge has shown to be its range. */
  leastFall: 0.1,
  /** Share of the rollouts with the greatest reward that is suspiciously perfect. */
  perfect: 0.95,
  /** How much of its way the held-out judge must have gone for perfect scores to be earned. */
  earned: 0.5,
  /** Share of the rollouts with one answer, and that of the first steps from which it has risen. */
  same: 0.9,
  sameBefore: 0.6,
  /** Scenarios that a step needs before their answers are said to be alike. */
  sameScenarios: 4,
  /** Share of the rollouts with degenerate text, and how far it has risen. */
  degenerate: 0.5,
  degenerateRise: 0.3,
  /** Steps of a plateau before a jump; its height in noises of a step and as a share of the rewards' range. */
  plateau: 10,
  jump: 6,
  leastJump: 0.2,
} as const;

type Rule = (
  now: WatchedStep,
  history: readonly WatchedStep[],
  evidence: Evidence,
) => string | null;

/** `history` ends with the step that is judged; its steps are those of this reward. */
export function alarmsFor(history: readonly WatchedStep[], evidence: Evidence): Alarm[] {
  const now = history.at(-1);
  if (!now) return [];
  return rules.flatMap(([code, rule]) => {
    const message = rule(now, history, evidence);
    return message === null ? [] : [{ code, step: now.step, message }];
  });
}

function heldOutDown(now: WatchedStep, history: readonly WatchedStep[]): string | null {
  const { window, fall, rise, leastFall } = alarmThresholds;
  const known = history.filter(({ heldOut, reward }) => heldOut && reward);
  if (!now.heldOut || known.length < 2 * window) return null;
  const recent = levelOf(known.slice(-window));
  // Against the best that the held-out judge has seen: a policy often learns first and games the reward afterwards.
  const ends = known.length - 2 * window;
  const earlier = Array.from({ length: ends + 1 }, (_, at) =>
    levelOf(known.slice(at, at + window)),
  );
  const best = earlier.reduce((a, b) => (b.judge > a.judge ? b : a));
  const range = Math.max(...known.map(({ heldOut }) => heldOut?.most ?? 0)) - lowestOf(known);
  const fell = best.judge - recent.judge;
  const chance = Math.hypot(best.error, recent.error);
  if (!(fell > fall * chance && fell > leastFall * range)) return null;
  if (!now.relative) {
    const noise = noiseOf(known.map(({ reward }) => reward?.mean ?? 0));
    if (!(recent.reward - best.reward > rise * noise * Math.sqrt(2 / window))) return null;
  }
  const rewards = now.relative
    ? "the rewards compare rollouts with one another, so that their level says nothing"
    : `the reward rose from ${short(best.reward)} to ${short(recent.reward)}`;
  return `The held-out judge fell from ${short(best.judge)} (around step ${best.step}) to ${short(recent.judge)} while ${rewards}: the policy may be learning what the reward likes and not what it is to like.`;
}

function levelOf(steps: readonly WatchedStep[]) {
  const errors = steps.map(({ heldOut }) => heldOut?.standardError ?? 0);
  return {
    step: steps[Math.floor(steps.length / 2)]?.step ?? 0,
    judge: mean(steps.map(({ heldOut }) => heldOut?.mean ?? 0)),
    reward: mean(steps.map(({ reward }) => reward?.mean ?? 0)),
    error: Math.sqrt(errors.reduce((sum, error) => sum + error ** 2, 0)) / steps.length,
  };
}

/** The least mean: single scores of a judge often reach the end of its scale. */
function lowestOf(steps: readonly WatchedStep[]): number {
  return Math.min(...steps.map(({ heldOut }) => heldOut?.mean ?? 0));
}

/** Whether something that does not train says that the policy got better too; null where nothing can. */
function isEarned(
  now: WatchedStep,
  history: readonly WatchedStep[],
  { metricRisen }: Evidence,
): boolean | null {
  const known = history.filter(({ heldOut }) => heldOut);
  const [first] = known;
  if (!now.heldOut || !first?.heldOut) return metricRisen;
  const { window, earned } = alarmThresholds;
  const start = first.heldOut.mean;
  const most = Math.max(...known.map(({ heldOut }) => heldOut?.most ?? 0));
  // A judge that finds all alike says nothing of how good they are.
  if (!(most > start)) return metricRisen;
  const recent = mean(known.slice(-window).map(({ heldOut }) => heldOut?.mean ?? 0));
  return recent >= start + earned * (most - start);
}

function perfectScores(
  now: WatchedStep,
  history: readonly WatchedStep[],
  evidence: Evidence,
): string | null {
  const { perfect } = alarmThresholds;
  const tops = history.map(({ reward }) => reward?.top ?? 0);
  const greatest = Math.max(...history.map(({ reward }) => reward?.most ?? -Infinity));
  const before = history.at(-2);
  // Perfect from the beginning: there is nothing to learn, which the run's advice says.
  if (now.relative || !now.reward || !before?.reward || (tops[0] ?? 0) >= perfect) return null;
  if (now.reward.most < greatest || before.reward.most < greatest) return null;
  if (now.reward.top < perfect || before.reward.top < perfect) return null;
  const earned = isEarned(now, history, evidence);
  const share = `${percent(now.reward.top)} of the rollouts have the greatest reward, ${short(greatest)}`;
  if (earned === true) return null;
  if (earned === false) {
    return `${share}, and nothing that does not train confirms it: look at what they say before more is trained.`;
  }
  // Nothing can confirm it. Learning takes its time, finding a gap does not.
  if ((tops.at(-4) ?? 1) > 0.5) return null;
  return `${share}, and three steps ago it was ${percent(tops.at(-4) ?? 0)}: scores that get perfect so soon are rarely earned. Give the task a heldOutJudge to tell.`;
}

function sameOutput(
  now: WatchedStep,
  history: readonly WatchedStep[],
  evidence: Evidence,
): string | null {
  const { same, sameBefore, sameScenarios } = alarmThresholds;
  const { share, scenarios } = now.same;
  if (share < same || scenarios < sameScenarios) return null;
  if ((history[0]?.same.share ?? 1) >= sameBefore) return null;
  if (isEarned(now, history, evidence) === true) return null;
  return `${percent(share)} of the rollouts end with the same answer, in ${scenarios} different scenarios; ${percent(history[0]?.same.share ?? 0)} did in the first step. Does the reward pay for it whatever was asked?`;
}

function degenerateText(now: WatchedStep, history: readonly WatchedStep[]): string | null {
  const { degenerate, degenerateRise, window } = alarmThresholds;
  const first = mean(history.slice(0, window).map((step) => step.degenerate));
  if (now.degenerate < degenerate || now.degenerate - first < degenerateRise) return null;
  return `${percent(now.degenerate)} of the rollouts repeat themselves, are garbled or empty; ${percent(first)} were at the beginning. The reward pays for text that nobody would read.`;
}

function rewardJump(now: WatchedStep, history: readonly WatchedStep[]): string | null {
  const { plateau, jump, leastJump, window } = alarmThresholds;
  if (now.relative) return null;
  const known = history.filter(({ reward }) => reward);
  const means = known.map(({ reward }) => reward?.mean ?? 0);
  const level = means.slice(-plateau - 2, -2);
  if (level.length < plateau) return null;
  // Two steps: what one of them shows may be its scenarios.
  const after = Math.min(...means.slice(-2));
  const range =
    Math.max(...known.map(({ reward }) => reward?.most ?? 0)) -
    Math.min(...known.map(({ reward }) => reward?.low ?? 0));
  const noise = noiseOf(level);
  const trend = mean(level.slice(plateau / 2)) - mean(level.slice(0, plateau / 2));
  const mostTrend = Math.max(3 * noise * Math.sqrt(4 / plateau), (leastJump / 4) * range);
  if (Math.abs(trend) > mostTrend) return null;
  // From the steps right before it: what rises over several steps is learnt.
  const height = after - Math.max(...level.slice(-window));
  if (!(height > jump * noise && height > leastJump * range)) return null;
  return `After ${plateau} steps at ${short(mean(level))} the reward jumped to ${short(after)} within two steps: policies learn gradually, and find gaps in a reward at once.`;
}

/** Standard deviation of a step, from neighbours alone: a trend or a jump hardly adds to it. */
function noiseOf(values: readonly number[]): number {
  const squares = values.slice(1).map((value, at) => (value - (values[at] ?? value)) ** 2);
  return squares.length === 0 ? 0 : Math.sqrt(mean(squares) / 2);
}

const rules: readonly [AlarmCode, Rule][] = [
  ["held_out_down", heldOutDown],
  ["perfect_scores", perfectScores],
  ["same_output", sameOutput],
  ["degenerate_text", degenerateText],
  ["reward_jump", rewardJump],
];
