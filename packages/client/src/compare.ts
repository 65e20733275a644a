import { HoneError } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { refuseUnknownOptions } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { scoresByScenario } from "./scores.ts";
import { bootstrapInterval, mean } from "./statistics.ts";

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
  const left = scoresByScenario(before, metric);
  const right = scoresByScenario(after, metric);
  const pairs = [...left].flatMap(([key, { value }]) => {
    const other = right.get(key);
    return other === undefined ? [] : [[value, other.value] as const];
  });
  if (pairs.length === 0) {
    throw new HoneError(
      `No scenario has "${metric}" on both sides. Gather the same scenarios twice, and return the metric from the rollout.`,
      { code: "invalid_request", param: "metric" },
    );
  }
  const differences = pairs.map(([a, b]) => b - a);
  return {
    metric,
    pairs: pairs.length,
    before: mean(pairs.map(([a]) => a)),
    after: mean(pairs.map(([, b]) => b)),
    difference: mean(differences),
    ...bootstrapInterval(differences, resamples, mulberry32(seed)),
    unpaired: left.size + right.size - 2 * pairs.length,
  };
}

export interface EvaluationOptions extends CompareOptions {
  /** A row for each answer as well: a template, a difficulty, a seed. */
  by?: ((scenario: never) => string | number) | undefined;
}

/** A row of an evaluation's table. Flat, for console.table. */
export interface EvaluationRow {
  name: string;
  /** What `by` said of the scenarios; "all" for all of them. */
  slice: string;
  scenarios: number;
  mean: number;
  /** The 95% interval of the mean. */
  low: number;
  high: number;
  /** To the first evaluation, over the scenarios of both; null in its own rows. */
  difference: number | null;
  differenceLow: number | null;
  differenceHigh: number | null;
}

/**
 * Several evaluations of the same scenarios side by side: policies, other models, greedy and sampled. The
 * first one is what the others are compared with.
 */
export function evaluationTable(
  evaluations: Readonly<Record<string, readonly TrajectoryGroup[]>>,
  options: EvaluationOptions = {},
): EvaluationRow[] {
  refuseUnknownOptions("evaluationTable()", options, ["metric", "seed", "resamples", "by"]);
  const { by, metric = "reward", seed = 0, resamples = 10_000 } = options;
  const sliceOf = by as ((scenario: unknown) => string | number) | undefined;
  const entries = Object.entries(evaluations);
  const [, first] = entries[0] ?? [];
  if (!first) {
    throw new HoneError("evaluationTable() needs at least one evaluation.", {
      code: "invalid_request",
      param: "evaluations",
    });
  }
  const slices = new Set<string | null>([null]);
  if (sliceOf) {
    for (const { scenario } of Object.values(evaluations).flat()) {
      slices.add(String(sliceOf(scenario)));
    }
  }
  return [...slices].flatMap((slice) => {
    const within = (groups: readonly TrajectoryGroup[]) =>
      slice === null
        ? groups
        : groups.filter(({ scenario }) => String(sliceOf?.(scenario)) === slice);
    return entries.flatMap(([name, groups]): EvaluationRow[] => {
      const values = [...scoresByScenario(within(groups), metric).values()].map((s) => s.value);
      if (values.length === 0) return [];
      const difference =
        groups === first ? null : differenceTo(within(first), within(groups), options);
      return [
        {
          name,
          slice: slice ?? "all",
          scenarios: values.length,
          mean: mean(values),
          ...bootstrapInterval(values, resamples, mulberry32(seed)),
          difference: difference?.difference ?? null,
          differenceLow: difference?.low ?? null,
          differenceHigh: difference?.high ?? null,
        },
      ];
    });
  });
}

/** Null where the two share no scenario. */
function differenceTo(
  first: readonly TrajectoryGroup[],
  other: readonly TrajectoryGroup[],
  { metric, seed, resamples }: EvaluationOptions,
): Comparison | null {
  try {
    return compare(first, other, { metric, seed, resamples });
  } catch (error) {
    if (HoneError.isInstance(error) && error.param === "metric") return null;
    throw error;
  }
}
