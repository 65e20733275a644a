import { HoneError } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { mulberry32 } from "./batches.ts";
import { refuseUnknownOptions } from "./known-options.ts";

export interface CompareOptions {
  /** `reward`, or the name of a metric. @default "reward" */
  metric?: string | undefined;
  /** Of the resampling: the same groups and seed give the same interval. @default 0 */
  seed?: number | undefined;
  /** @default 10000 */
  resamples?: number | undefined;
}

/** Flat, for console.table. */
export interface Comparison {
  metric: string;
  /** Scenarios with a value on both sides. */
  pairs: number;
  before: number;
  after: number;
  /** after − before, the mean over the pairs. */
  difference: number;
  /** The 95% interval of the difference; it holds 0 where chance may explain it. */
  low: number;
  high: number;
  /** Scenarios without a value on one side, left out. */
  unpaired: number;
}

/**
 * The difference between two evaluations of the same scenarios. Each scenario is compared with
 * itself, so that its difficulty does not widen the interval (percentile bootstrap over scenarios).
 */
export function compare(
  before: readonly TrajectoryGroup[],
  after: readonly TrajectoryGroup[],
  options: CompareOptions = {},
): Comparison {
  refuseUnknownOptions("compare()", options, ["metric", "seed", "resamples"]);
  const { metric = "reward", seed = 0, resamples = 10_000 } = options;
  const left = meansByScenario(before, metric);
  const right = meansByScenario(after, metric);
  const pairs = [...left].flatMap(([key, value]) => {
    const other = right.get(key);
    return other === undefined ? [] : [[value, other] as const];
  });
  if (pairs.length === 0) {
    throw new HoneError(
      `No scenario has "${metric}" on both sides. Gather the same scenarios twice, and return the metric from the rollout.`,
      { code: "invalid_request", param: "metric" },
    );
  }
  const differences = pairs.map(([a, b]) => b - a);
  const [low, high] = bootstrapInterval(differences, resamples, mulberry32(seed));
  return {
    metric,
    pairs: pairs.length,
    before: mean(pairs.map(([a]) => a)),
    after: mean(pairs.map(([, b]) => b)),
    difference: mean(differences),
    low,
    high,
    unpaired: left.size + right.size - 2 * pairs.length,
  };
}

function meansByScenario(groups: readonly TrajectoryGroup[], metric: string): Map<string, number> {
  const seen = new Map<string, number>();
  const means = new Map<string, number>();
  for (const group of groups) {
    const scenario = JSON.stringify(group.scenario);
    // A scenario that was evaluated twice pairs in order.
    const nth = seen.get(scenario) ?? 0;
    seen.set(scenario, nth + 1);
    const values = group.trajectories.flatMap((trajectory) => valueOf(trajectory, metric));
    if (values.length > 0) means.set(`${nth} ${scenario}`, mean(values));
  }
  return means;
}

function valueOf(trajectory: Trajectory, metric: string): number[] {
  const value = metric === "reward" ? trajectory.reward : trajectory.metrics[metric];
  return value === null || value === undefined ? [] : [value];
}

function bootstrapInterval(
  values: readonly number[],
  resamples: number,
  random: () => number,
): [number, number] {
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i += 1) {
      sum += values[Math.floor(random() * values.length)] as number;
    }
    return sum / values.length;
  }).sort();
  return [quantile(means, 0.025), quantile(means, 0.975)];
}

function quantile(sorted: Float64Array, share: number): number {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)] as number;
  const above = sorted[Math.ceil(place)] as number;
  return below + (above - below) * (place - Math.floor(place));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
