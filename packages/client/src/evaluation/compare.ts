import { HoneError } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { refuseUnknownOptions, requireNumber, requireObject } from "@hone/core";
import { optionalFunction, requireGroups, requireList, requireText } from "../argument-kinds.ts";
import { mulberry32 } from "@hone/core";
import { scoresByScenario } from "./scores.ts";
import { bootstrapInterval, fewestForInterval, type Interval, mean } from "../statistics.ts";

export interface CompareOptions {
  /** "reward", or the name of a metric. @default "reward" */
  metric?: string | undefined;
  /** Seed of the resampling. The same groups and seed give the same interval. @default 0 */
  seed?: number | undefined;
  /** Number of resamples. With fewer than 40 there is no 2.5% on either side. @default 10000 */
  resamples?: number | undefined;
}

/** The difference of two evaluations. It is flat, so that console.table can print it. */
export interface Comparison {
  metric: string;
  /** Scenarios with a value on both sides. */
  pairs: number;
  before: number;
  after: number;
  /** after − before, the mean over the pairs. */
  difference: number;
  /**
   * Lower end of the 95% interval of the difference. If the interval contains 0, chance may explain the
   * difference. Fewer than 6 pairs give −Infinity to Infinity, because even five pairs that all differ in one
   * direction may be chance.
   */
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
  requireGroups("compare()", before, "before");
  requireGroups("compare()", after, "after");
  refuseUnknownOptions("compare()", options, ["metric", "seed", "resamples"]);
  const resampling = readOptions(options);
  const compared = pairwise(before, after, resampling);
  if (compared && compared.pairs > 1) return compared;
  const { metric } = resampling;
  throw new HoneError(
    compared
      ? `Only one scenario has "${metric}" on both sides: one pair says nothing about others. Gather more scenarios, twice the same ones.`
      : `No scenario has "${metric}" on both sides. Gather the same scenarios twice, and return the metric from the rollout.`,
    { code: "invalid_request", param: "metric" },
  );
}

type Resampling = Required<{ [K in keyof CompareOptions]: NonNullable<CompareOptions[K]> }>;

function readOptions(options: CompareOptions): Resampling {
  const { metric = "reward", seed = 0, resamples = 10_000 } = options;
  requireText("compare()", metric, "metric");
  requireNumber("seed", seed, { whole: true });
  requireNumber("resamples", resamples, { whole: true, least: 40 });
  return { metric, seed, resamples };
}

/** Null where the two share no scenario. */
function pairwise(
  before: readonly TrajectoryGroup[],
  after: readonly TrajectoryGroup[],
  resampling: Resampling,
): Comparison | null {
  const { metric } = resampling;
  const left = scoresByScenario(before, metric);
  const right = scoresByScenario(after, metric);
  const pairs = [...left].flatMap(([key, { value }]) => {
    const other = right.get(key);
    return other === undefined ? [] : [[value, other.value] as const];
  });
  if (pairs.length === 0) return null;
  const differences = pairs.map(([a, b]) => b - a);
  return {
    metric,
    pairs: pairs.length,
    before: mean(pairs.map(([a]) => a)),
    after: mean(pairs.map(([, b]) => b)),
    difference: mean(differences),
    ...intervalOf(differences, resampling),
    unpaired: left.size + right.size - 2 * pairs.length,
  };
}

function intervalOf(values: readonly number[], { resamples, seed }: Resampling): Interval {
  if (values.length < fewestForInterval) return { low: -Infinity, high: Infinity };
  return bootstrapInterval(values, resamples, mulberry32(seed));
}

export interface EvaluationOptions extends CompareOptions {
  /** Adds a row for each value that it gives: a template, a difficulty, a seed. */
  by?: ((scenario: never) => string | number) | undefined;
}

/** A row of an evaluation's table. It is flat, so that console.table can print it. */
export interface EvaluationRow {
  name: string;
  /** What `by` gave for the scenarios of this row; "all" for all of them. A slice named "all" is quoted. */
  slice: string;
  scenarios: number;
  mean: number;
  /** Lower end of the 95% interval of the mean. Fewer than 6 scenarios give −Infinity to Infinity. */
  low: number;
  high: number;
  /** Difference to the first evaluation, over the scenarios that both have. Null in the first one's rows. */
  difference: number | null;
  /** Lower end of its 95% interval. As with `compare`, fewer than 6 pairs give no interval. */
  differenceLow: number | null;
  differenceHigh: number | null;
}

type Pairs = readonly (readonly [name: string, groups: readonly TrajectoryGroup[]])[];

/** Groups by the name of their evaluation, or pairs of name and groups. */
export type Evaluations = Readonly<Record<string, readonly TrajectoryGroup[]>> | Pairs;

/**
 * Puts several evaluations of the same scenarios side by side: policies, other models, greedy and sampled. The
 * others are compared with the first one. If a name is a whole number, pass pairs, `[["base", a], ["5", b]]`,
 * because an object lists such keys first.
 */
export function evaluationTable(
  evaluations: Evaluations,
  options: EvaluationOptions = {},
): EvaluationRow[] {
  refuseUnknownOptions("evaluationTable()", options, ["metric", "seed", "resamples", "by"]);
  optionalFunction("evaluationTable()", options.by, "by");
  const sliceOf = options.by as ((scenario: unknown) => string | number) | undefined;
  const resampling = readOptions(options);
  const entries = inOrder(evaluations);
  for (const [name, groups] of entries) {
    requireGroups("evaluationTable()", groups, `evaluations.${name}`);
  }
  const [, first] = entries[0] ?? [];
  if (!first) {
    throw new HoneError("evaluationTable() needs at least one evaluation.", {
      code: "invalid_request",
      param: "evaluations",
    });
  }
  const slices = new Set<string | null>([null]);
  if (sliceOf) {
    for (const { scenario } of entries.flatMap(([, groups]) => groups)) {
      slices.add(String(sliceOf(scenario)));
    }
  }
  return [...slices].flatMap((slice) => {
    const within = (groups: readonly TrajectoryGroup[]) =>
      slice === null
        ? groups
        : groups.filter(({ scenario }) => String(sliceOf?.(scenario)) === slice);
    return entries.flatMap(([name, groups], at): EvaluationRow[] => {
      const scores = scoresByScenario(within(groups), resampling.metric);
      const values = [...scores.values()].map(({ value }) => value);
      if (values.length === 0) return [];
      const difference = at === 0 ? null : pairwise(within(first), within(groups), resampling);
      return [
        {
          name,
          slice: slice === null ? "all" : slice === "all" ? '"all"' : slice,
          scenarios: values.length,
          mean: mean(values),
          ...intervalOf(values, resampling),
          difference: difference?.difference ?? null,
          differenceLow: difference?.low ?? null,
          differenceHigh: difference?.high ?? null,
        },
      ];
    });
  });
}

/** An object lists keys that are whole numbers before all others, wherever they were written. */
function inOrder(evaluations: Evaluations): Pairs {
  if (isPairs(evaluations)) {
    for (const [at, pair] of evaluations.entries()) {
      requireList("evaluationTable()", pair, `evaluations[${at}], a name and its groups`);
    }
    return evaluations;
  }
  requireObject("evaluationTable()", evaluations, "groups by name", "evaluations");
  const entries = Object.entries(evaluations);
  const number = entries.find(([name]) => /^(0|[1-9]\d*)$/.test(name))?.[0];
  if (number === undefined) return entries;
  throw new HoneError(
    `evaluationTable(): "${number}" is a whole number, and an object puts such keys first, so that it would be what the others are compared with. ` +
      `Give pairs in their order, [["base", groups], ["${number}", groups]], or another name, such as "step ${number}".`,
    { code: "invalid_config", param: `evaluations.${number}` },
  );
}

/** `Array.isArray` does not narrow to readonly arrays. */
function isPairs(evaluations: Evaluations): evaluations is Pairs {
  return Array.isArray(evaluations);
}
