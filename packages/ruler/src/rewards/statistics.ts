/** Statistics that leave out what is null, as torch's nan functions do. Null where nothing is left. */
export function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length > 0 ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

/** Standard deviation with ddof 1: null for fewer than two values. */
export function deviationOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  const mean = meanOf(known);
  if (mean === null || known.length < 2) return null;
  const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (known.length - 1));
}
