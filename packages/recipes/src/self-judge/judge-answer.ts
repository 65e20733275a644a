/** Reads a judge's answer: a score for each of `count` candidates, in their order; null if it gives none. */
export type ReadScores = (text: string, count: number) => number[] | null;

/**
 * The last list of exactly `count` numbers from 0 to 1. Brackets of another kind, such as a citation behind it, are
 * passed over; nothing is clipped, padded or guessed.
 */
export const readScores: ReadScores = (text, count) => {
  for (const [, inside = ""] of [...text.matchAll(/\[([^[\]]*)\]/g)].toReversed()) {
    const scores = numbersOf(inside);
    if (scores?.length === count && scores.every((score) => score >= 0 && score <= 1)) {
      return scores;
    }
  }
  return null;
};

/**
 * As Trinity-RFT's GSM8K-RULER example reads it: what stands between the last `[` and the last `]`, each number
 * clipped to [0, 1]; it holds if there are `count` of them. A citation at the end makes an answer invalid.
 */
export const readScoresAsTrinity: ReadScores = (text, count) => {
  const [open, close] = [text.lastIndexOf("["), text.lastIndexOf("]")];
  if (open < 0 || close < open) return null;
  const scores = numbersOf(text.slice(open + 1, close));
  if (scores?.length !== count) return null;
  return scores.map((score) => Math.min(1, Math.max(0, score)));
};

function numbersOf(list: string): number[] | null {
  const entries = list.split(",").map((entry) => entry.trim());
  const isNumber = (entry: string) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(entry);
  return entries.every(isNumber) ? entries.map(Number) : null;
}
