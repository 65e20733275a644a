import { deviationOf, meanOf } from "./statistics.ts";

/** How the values of several functions become one reward; the names are TRL's. */
export type Aggregation =
  /** R = Σ wₖ rₖ over the functions that apply. */
  | "sum_then_normalize"
  /** Each function is z-scored within its group, then summed by weight, then z-scored over the batch. */
  | "normalize_then_sum";

/** Whose standard deviation (ddof 1, + 1e-4) divides an advantage: the group's, the batch's, or nobody's. */
export type ScaleRewards = "group" | "batch" | "none";

export interface Aggregated {
  /** The weighted sum by trajectory, before any scaling; null where no function applies. */
  sums: (number | null)[];
  /** What TRL's GRPO trainer would use; 0 where no function applies. */
  advantages: number[];
}

type Row = readonly (number | null)[];

const epsilon = 1e-4;

/** `values`: by group, by member, by function. */
export function aggregate(
  values: readonly (readonly Row[])[],
  weights: readonly number[],
  options: { aggregation: Aggregation; scaleRewards: ScaleRewards },
): Aggregated {
  const sums = values.map((rows) => rows.map((row) => weightedSum(row, weights)));
  const advantages =
    options.aggregation === "sum_then_normalize"
      ? scaledSums(sums, options.scaleRewards)
      : normalizedSums(values, weights);
  // What has no reward moves nothing.
  return { sums: sums.flat(), advantages: advantages.map((value) => value ?? 0) };
}

/** Null only where every function said null. */
function weightedSum(row: Row, weights: readonly number[]): number | null {
  if (row.every((value) => value === null)) return null;
  return row.reduce<number>((sum, value, at) => sum + (value ?? 0) * (weights[at] ?? 0), 0);
}

function scaledSums(
  sums: readonly (readonly (number | null)[])[],
  scale: ScaleRewards,
): (number | null)[] {
  const ofBatch = batchDeviation(sums.flat());
  return sums.flatMap((group) => {
    const mean = meanOf(group);
    const ofGroup = group.length > 1 ? deviationOf(group) : 0;
    const deviation = scale === "batch" ? ofBatch : ofGroup;
    return group.map((sum) => {
      if (sum === null || mean === null) return null;
      if (scale === "none") return sum - mean;
      return deviation === null ? null : (sum - mean) / (deviation + epsilon);
    });
  });
}

function normalizedSums(
  values: readonly (readonly Row[])[],
  weights: readonly number[],
): (number | null)[] {
  const sums = values.flatMap((rows) => {
    const columns = weights.map((_, at) => {
      const column = rows.map((row) => row[at] ?? null);
      return { mean: meanOf(column), deviation: rows.length > 1 ? deviationOf(column) : 0 };
    });
    return rows.map((row) => {
      if (row.every((value) => value === null)) return null;
      return row.reduce<number>((sum, value, at) => {
        const { mean = null, deviation = null } = columns[at] ?? {};
        // A function that applies to one member of a group tells its members not apart.
        if (value === null || mean === null || deviation === null) return sum;
        return sum + ((value - mean) / (deviation + epsilon)) * (weights[at] ?? 0);
      }, 0);
    });
  });
  const mean = meanOf(sums);
  const deviation = batchDeviation(sums);
  return sums.map((sum) =>
    sum === null || mean === null || deviation === null
      ? null
      : (sum - mean) / (deviation + epsilon),
  );
}

function batchDeviation(values: readonly (number | null)[]): number | null {
  return values.length > 1 ? deviationOf(values) : 0;
}
