export interface Interval {
  low: number;
  high: number;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Sample standard deviation (n − 1); null of fewer than two values. */
export function standardDeviation(values: readonly number[]): number | null {
  if (values.length < 2) return null;
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/**
 * Values that a 95% interval takes. Where signs are chance, five values have the same one in 2 of 32 cases,
 * more than 5%, and six in 2 of 64; a bootstrap of fewer only repeats the few that it has.
 */
export const fewestForInterval = 6;

/** The 95% interval of the mean: percentile bootstrap over the values. */
export function bootstrapInterval(
  values: readonly number[],
  resamples: number,
  random: () => number,
): Interval {
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i += 1) {
      sum += values[Math.floor(random() * values.length)] as number;
    }
    return sum / values.length;
  }).sort();
  return { low: quantile(means, 0.025), high: quantile(means, 0.975) };
}

/** Linear between the two nearest; `sorted` rises. */
function quantile(sorted: ArrayLike<number>, share: number): number {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)] as number;
  const above = sorted[Math.ceil(place)] as number;
  return below + (above - below) * (place - Math.floor(place));
}
