import type { Comparison } from "@hone/client";

/** `worse` and `learnt` are more than chance explains; `unclear` is neither. */
export type Outcome = "learnt" | "worse" | "unclear";

/** An interval over fewer games is too short: the bootstrap sees only the games that there are. */
export const leastVerdictSeeds = 16;

/** By the paired difference in score: the whole 95% interval has to lie on one side of 0. */
export function outcomeOf({ low, high }: Pick<Comparison, "low" | "high">): Outcome {
  if (low > 0) return "learnt";
  return high < 0 ? "worse" : "unclear";
}

/** What the program exits with. */
export function exitCodeOf(
  score: Pick<Comparison, "low" | "high">,
  { ungated }: { ungated: boolean },
): 0 | 1 {
  return ungated || outcomeOf(score) === "learnt" ? 0 : 1;
}

/** Why a verdict over so few games must not decide; null where it may. */
export function tooFewSeeds(
  verdictSeeds: number,
  { ungated }: { ungated: boolean },
): string | null {
  if (ungated || verdictSeeds >= leastVerdictSeeds) return null;
  return `--verdict-seeds ${verdictSeeds} is too few for a verdict: give at least ${leastVerdictSeeds}, or --ungated.`;
}

const texts: Readonly<Record<Outcome, string>> = {
  learnt: "It has learnt: the whole interval lies above 0.",
  worse: "It got worse: the whole interval lies below 0.",
  unclear:
    "It has not shown that it learnt: the interval holds 0, so chance may explain the difference.",
};

export function outcomeText(score: Pick<Comparison, "low" | "high">): string {
  return texts[outcomeOf(score)];
}
