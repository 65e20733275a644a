import { mulberry32, shuffledIndices } from "@hone/core";

/**
 * `passes` orders of the numbers below `length`. Each second one is the reverse of the one before it,
 * so that whatever a judge gives to a place cancels out over the pair.
 */
export function seededOrders(length: number, passes: number, seed: number): number[][] {
  const random = mulberry32(seed);
  const orders: number[][] = [];
  for (let pass = 0; pass < passes; pass += 1) {
    const before = orders[pass - 1];
    orders.push(pass % 2 === 1 && before ? [...before].reverse() : shuffledIndices(length, random));
  }
  return orders;
}

export interface PassScores {
  order: readonly number[];
  /** By attempt. */
  scores: readonly number[];
}

/**
 * What one step from the first place to the last does to a score, by least squares over the passes:
 * 0.1 means that an attempt shown last gets 0.1 more than it would first. Null where one pass was
 * made: then place and worth cannot be told apart.
 */
export function positionBias(passes: readonly PassScores[]): number | null {
  const length = passes[0]?.scores.length ?? 0;
  if (passes.length < 2 || length < 2) return null;
  const places = passes.map(({ order }) => {
    const place = Array.from({ length }, () => 0);
    for (const [at, attempt] of order.entries()) place[attempt] = at / (length - 1);
    return place;
  });
  let above = 0;
  let below = 0;
  for (let attempt = 0; attempt < length; attempt += 1) {
    const x = places.map((place) => place[attempt] ?? 0);
    const y = passes.map(({ scores }) => scores[attempt] ?? 0);
    const meanX = mean(x);
    const meanY = mean(y);
    for (const [pass, value] of x.entries()) {
      above += (value - meanX) * ((y[pass] ?? 0) - meanY);
      below += (value - meanX) ** 2;
    }
  }
  return below > 0 ? above / below : null;
}

/** Mean over attempts of the standard deviation (ddof 1) between the passes. Null for one pass. */
export function passSpread(passes: readonly PassScores[]): number | null {
  const length = passes[0]?.scores.length ?? 0;
  if (passes.length < 2 || length === 0) return null;
  return mean(
    Array.from({ length }, (_, attempt) =>
      deviation(passes.map(({ scores }) => scores[attempt] ?? 0)),
    ),
  );
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(
    values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1),
  );
}
