import type { Comparison, EvaluationRow } from "../evaluation/compare.ts";

/** Fewer scenarios give an interval that is too short, because a bootstrap sees only those that it has. */
export const leastHeldOut = 16;

/**
 * `learnt` and `worse` are more than chance explains; `unclear` is neither. `nothing-trained`: the policy is the base,
 * and there is nothing to compare.
 */
export type Outcome = "learnt" | "slice-worse" | "worse" | "unclear" | "nothing-trained";

export interface Verdict {
  /** Whether the run passes: better over all scenarios, and no slice worse. */
  learnt: boolean;
  outcome: Outcome;
  /** Slices whose whole interval lies below 0; a slice of fewer than 6 has none. */
  worse: EvaluationRow[];
  /** Slices that are below the base by less than their interval, which chance may explain. */
  below: EvaluationRow[];
}

/** `slices` are rows of the trained policy, each with its paired difference to the base. */
export function decide(
  all: Pick<Comparison, "low" | "high">,
  slices: readonly EvaluationRow[],
): Verdict {
  const fell = slices.filter(({ difference }) => difference !== null && difference < 0);
  const worse = fell.filter(({ differenceHigh }) => differenceHigh !== null && differenceHigh < 0);
  const outcome = outcomeOf(all, worse.length > 0);
  return {
    learnt: outcome === "learnt",
    outcome,
    worse,
    below: fell.filter((row) => !worse.includes(row)),
  };
}

function outcomeOf({ low, high }: Pick<Comparison, "low" | "high">, sliceWorse: boolean): Outcome {
  if (low > 0) return sliceWorse ? "slice-worse" : "learnt";
  return high < 0 ? "worse" : "unclear";
}
