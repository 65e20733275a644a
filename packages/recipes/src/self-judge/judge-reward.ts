import { rankAccuracyOf, sampleVariance } from "../doctor/statistics.ts";

/**
 * What a judgement earns: the share of the pairs that gold tells apart which it orders alike, a tie counting half; 0
 * if its scores hardly differ (standard deviation below `floor`), so that "all the same" earns nothing, and 0 if it
 * could not be read. Null if gold tells no pair apart: then nobody can say how good it is.
 */
export function rankReward(
  scores: readonly number[] | null,
  gold: readonly number[],
  floor: number,
): number | null {
  if (new Set(gold).size < 2) return null;
  if (scores === null || Math.sqrt(sampleVariance(scores)) < floor) return 0;
  return rankAccuracyOf(scores, gold);
}

/**
 * Trinity-RFT's: 1 − mean |score − scaled gold|, 0 if it could not be read. Its gold is accuracy (0 or 1) with ±.1
 * for the format, which (gold + .1)/1.2 brings to [0, 1].
 */
export function distanceReward(
  scores: readonly number[] | null,
  gold: readonly number[],
): number | null {
  if (gold.length === 0) return null;
  if (scores === null) return 0;
  const distance = gold.reduce(
    (sum, value, at) => sum + Math.abs((scores[at] as number) - scaledGold(value)),
    0,
  );
  return 1 - distance / gold.length;
}

export function scaledGold(gold: number): number {
  return (gold + 0.1) / 1.2;
}
