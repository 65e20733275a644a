/** Of logprobs that two parties give the same tokens: the distance of each two. */
export function distances(one: readonly number[], other: readonly number[]): number[] {
  // Lists of different lengths are of different tokens.
  if (one.length !== other.length) return [Infinity];
  return one.map((value, at) => Math.abs(value - (other[at] ?? Infinity)));
}

export function meanOf(values: readonly number[]): number {
  return values.length === 0 ? NaN : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** What was measured of answers of one engine. */
export interface OfEngine {
  engine: string;
  values: readonly number[];
}

/** The mean of the engine that is furthest off. Many engines that are right must not hide one that is not. */
export function worstOf(told: readonly OfEngine[]): {
  engine: string;
  mean: number;
  engines: number;
} {
  const all = new Map<string, number[]>();
  for (const { engine, values } of told) all.set(engine, [...(all.get(engine) ?? []), ...values]);
  let worst = { engine: "-", mean: Number.NaN };
  for (const [engine, values] of all) {
    const mean = meanOf(values);
    // Of an answer without tokens there is no mean, which is worse than any.
    if (worst.engine === "-" || Number.isNaN(mean) || mean > worst.mean) worst = { engine, mean };
  }
  return { ...worst, engines: all.size };
}

/**
 * How far logprobs of answers sampled with top_p are from what they may be. The engine divides by the share that
 * top_p left, which is at least top_p: its logprob is above the trainer's by 0 to −ln(top_p).
 */
export function outsideNucleus(
  engine: readonly number[],
  trainer: readonly number[],
  topP: number,
): number[] {
  if (engine.length !== trainer.length) return [Infinity];
  return engine.map((value, at) => {
    const above = value - (trainer[at] ?? NaN);
    return Math.max(0, -above, above + Math.log(topP));
  });
}
