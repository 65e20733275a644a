import { printableLine } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { valueOf } from "../evaluation/scores.ts";
import { mean, standardDeviation } from "../statistics.ts";
import { failedMark } from "../training/compared.ts";

/** What a probe has counted and measured of the base's rollouts. */
export interface ProbeFigures {
  groups: number;
  /** Rollouts that ended. */
  rollouts: number;
  failed: number;
  /** The last failure in words; null where none failed. */
  lastFailure: string | null;
  /** Groups at which the judge failed, and the last thing that was said of it; null where none was marked so. */
  unjudged: { groups: number; why: string } | null;
  /** Of the rollouts that have one; null where none has. */
  reward: { mean: number; least: number; most: number; count: number } | null;
  /** Null where nothing says what passes; `whyNot` has the reason in words. */
  pass: Pass | null;
  whyNoPass: string | null;
  /** Groups of at least two rewards, and in how many of them these differ. */
  varied: { groups: number; of: number };
  /** Means over the rollouts. */
  length: { turns: number; promptTokens: number; completionTokens: number; sequenceTokens: number };
  /** The share of the turns that ended at their limit of tokens. */
  cut: number;
  /** The share of the completions that would not be trained: temperature 0, top_p below 1, a grammar. */
  constrained: number;
  /** The share of the rollouts in which the model said and called the same, as the commonest of them. */
  commonest: number;
}

interface Pass {
  /** What is looked at: `reward` or a metric. */
  metric: string;
  /** A rollout passes from this value on. */
  at: number;
  /** The share of the rollouts that pass. */
  at1: number;
  /** The share of the scenarios that pass at least once in k rollouts, estimated without bias. */
  atK: number;
  k: number;
}

/** What decides whether a rollout passes. */
export interface PassRule {
  metric: string;
  /** @default 1, where all values lie between 0 and 1 */
  at?: number | undefined;
  /** Rewards compare the rollouts of a group with one another, as a judge's do that ranks them. */
  relative: boolean;
}

/**
 * The chance that at least one of k rollouts passes, from n of which c did: 1 − C(n−c, k)/C(n, k)
 * (https://arxiv.org/abs/2107.03374, equation 1). Null where k is more than n.
 */
export function passAtK(n: number, c: number, k: number): number | null {
  if (k > n) return null;
  let allFail = 1;
  for (let i = 0; i < k; i += 1) allFail *= Math.max(0, n - c - i) / (n - i);
  return 1 - allFail;
}

export function figuresOf(
  groups: readonly TrajectoryGroup[],
  rule: PassRule,
  k: number,
): ProbeFigures {
  const trajectories = groups.flatMap((group) => group.trajectories);
  const exceptions = groups.flatMap((group) => group.exceptions);
  const rewards = trajectories.flatMap((one) => valueOf(one, "reward"));
  const compared = groups
    .map((group) => group.trajectories.flatMap((one) => valueOf(one, "reward")))
    .filter((values) => values.length > 1);
  const usage = trajectories.map((one) => one.usage);
  const turns = trajectories.flatMap((one) => one.turns ?? []);
  const completions = sum(usage.map((one) => one.completions));
  const last = exceptions.at(-1);
  return {
    groups: groups.length,
    rollouts: trajectories.length,
    failed: exceptions.length,
    lastFailure: last ? printableLine(`${last.type}: ${last.message}`) : null,
    unjudged: unjudgedOf(groups),
    reward:
      rewards.length === 0
        ? null
        : {
            mean: mean(rewards),
            least: Math.min(...rewards),
            most: Math.max(...rewards),
            count: rewards.length,
          },
    ...passOf(groups, rule, k),
    varied: {
      groups: compared.filter((values) => values.some((value) => value !== values[0])).length,
      of: compared.length,
    },
    length: {
      turns: meanOr0(usage.map((one) => one.completions)),
      promptTokens: meanOr0(usage.map((one) => one.promptTokens)),
      completionTokens: meanOr0(usage.map((one) => one.completionTokens)),
      sequenceTokens: meanOr0(
        usage.map((one) => one.sequenceTokens ?? one.promptTokens + one.completionTokens),
      ),
    },
    cut: share(
      turns.filter((one) => one.finish_reason === "length").length,
      turns.filter((one) => one.finish_reason !== null).length,
    ),
    constrained: share(sum(usage.map((one) => one.constrained ?? 0)), completions),
    commonest: commonestShare(trajectories),
  };
}

function unjudgedOf(groups: readonly TrajectoryGroup[]): ProbeFigures["unjudged"] {
  const failed = groups.filter((group) => failedMark(group) === "judge_failed");
  if (failed.length === 0) return null;
  const said = failed.flatMap(({ logs }) => logs.at(-1) ?? []).at(-1);
  return { groups: failed.length, why: printableLine(said ?? "it gave no reason.") };
}

function passOf(
  groups: readonly TrajectoryGroup[],
  { metric, at, relative }: PassRule,
  k: number,
): { pass: Pass | null; whyNoPass: string | null } {
  const none = (whyNoPass: string) => ({ pass: null, whyNoPass });
  if (relative && metric === "reward") {
    return none("the rewards compare a group's rollouts with one another and have no level");
  }
  const values = groups.map((group) => group.trajectories.flatMap((one) => valueOf(one, metric)));
  const all = values.flat();
  if (all.length === 0) return none(`no rollout has "${metric}"`);
  if (at === undefined && all.some((value) => value < 0 || value > 1)) {
    return none(
      `"${metric}" is not between 0 and 1: say with passAt from which value on it passes`,
    );
  }
  const bar = at ?? 1;
  const counted = values.map((group) => ({
    n: group.length,
    c: group.filter((value) => value >= bar).length,
  }));
  const most = Math.min(k, Math.max(...counted.map(({ n }) => n)));
  const estimates = counted.flatMap(({ n, c }) => passAtK(n, c, most) ?? []);
  const passed = sum(counted.map(({ c }) => c));
  return {
    pass: { metric, at: bar, at1: passed / all.length, atK: mean(estimates), k: most },
    whyNoPass: null,
  };
}

/**
 * How much of the difference between a group's rewards is the judge's own noise: the variance of two judgements of
 * the same rollout over the variance within groups. Null where no group's rewards differ or none was judged twice.
 */
export function judgeNoise(
  first: readonly TrajectoryGroup[],
  second: readonly TrajectoryGroup[],
): number | null {
  const again = new Map(
    second.flatMap((group) =>
      group.trajectories.map((one) => [one.rolloutId, one.reward] as const),
    ),
  );
  const between: number[] = [];
  const within: number[] = [];
  for (const group of first) {
    const pairs = group.trajectories.flatMap((one): [number, number][] => {
      const other = again.get(one.rolloutId);
      return one.reward === null || other === null || other === undefined
        ? []
        : [[one.reward, other]];
    });
    // Half the variance of the differences: what all rollouts of the group get alike moves no advantage.
    const moved = standardDeviation(pairs.map(([a, b]) => a - b));
    if (moved !== null) between.push(moved ** 2 / 2);
    const spread = standardDeviation(pairs.map(([a]) => a));
    if (spread !== null) within.push(spread ** 2);
  }
  if (between.length === 0 || within.length === 0) return null;
  const signal = mean(within);
  return signal === 0 ? null : mean(between) / signal;
}

/** By all that the model said and called: many agents end with the same word, whatever they did before. */
function commonestShare(trajectories: readonly Trajectory[]): number {
  const counts = new Map<string, number>();
  for (const { messages } of trajectories) {
    const said = messages
      .filter((one) => one["role"] === "assistant")
      .map((one) => [one["content"], callsOf(one["tool_calls"])]);
    const key = JSON.stringify(said);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return share(Math.max(0, ...counts.values()), trajectories.length);
}

/** Without their ids, which are others each time. */
function callsOf(calls: unknown): unknown[] {
  if (!Array.isArray(calls)) return [];
  return calls.map((call: { function?: unknown }) => call.function);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function meanOr0(values: readonly number[]): number {
  return values.length === 0 ? 0 : mean(values);
}
