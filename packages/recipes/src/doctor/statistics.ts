import { mulberry32 } from "@hone/core";

/** An estimate, and its 95% interval: a percentile bootstrap over groups. Fewer than six groups give no interval. */
export interface Estimate {
  value: number;
  low: number | null;
  high: number | null;
}

/** One judging of a group: the scores of its outputs, in the outputs' own order. */
export interface JudgedOnce {
  scores: readonly number[];
  /** The place at which each output was shown, from 0 for the first to 1 for the last. Null: the judge sees no order. */
  places: readonly number[] | null;
}

/** A group as one judge saw it. All judgings have a score for each output. */
export interface JudgedGroup {
  /** Two or more where the judge gave them; none for a group that cannot be judged, because its outputs are all alike. */
  judgings: readonly JudgedOnce[];
  /** What each output is worth in truth; null where nobody knows. */
  gold: readonly (number | null)[];
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Sample variance (n − 1); 0 of a single value. */
export function sampleVariance(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  return values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
}

/** What the variance within groups is made of: a group's scores, summed up. */
export interface Spread {
  count: number;
  sum: number;
  squares: number;
  /** Sample variance within the group. */
  within: number;
}

export function spreadOf(scores: readonly number[]): Spread {
  return {
    count: scores.length,
    sum: scores.reduce((sum, score) => sum + score, 0),
    squares: scores.reduce((sum, score) => sum + score * score, 0),
    within: sampleVariance(scores),
  };
}

/**
 * How far a judge tells on-policy outputs apart: scores are whitened by one mean and one deviation over all groups,
 * and the sample variance within a group is averaged over the groups. It is about the share of the total variance
 * that lies within groups (https://arxiv.org/abs/2503.15477). A judge that gives everything the same score has 0.
 */
export function withinVariance(groups: readonly Spread[]): number | null {
  let [count, sum, squares] = [0, 0, 0];
  for (const group of groups) {
    count += group.count;
    sum += group.sum;
    squares += group.squares;
  }
  if (groups.length === 0 || count < 2) return null;
  const within = mean(groups.map((group) => group.within));
  const total = (squares - sum ** 2 / count) / (count - 1);
  // Of equal scores the sums leave a rounding error.
  return within === 0 || total <= 0 ? 0 : within / total;
}

/**
 * The share of pairs that the scores order as gold does; a tie agrees only with a tie. Null for fewer than two outputs.
 */
export function accuracyOf(scores: readonly number[], gold: readonly number[]): number | null {
  const agreed = pairs(scores, gold).map(([score, truth]) =>
    Math.sign(score) === Math.sign(truth) ? 1 : 0,
  );
  return agreed.length > 0 ? mean(agreed) : null;
}

/**
 * The share of the pairs which gold tells apart that the scores order alike; a tie of the scores counts half, so that
 * guessing gives one half. Null if gold tells none apart.
 */
export function rankAccuracyOf(scores: readonly number[], gold: readonly number[]): number | null {
  const ordered = pairs(scores, gold)
    .filter(([, truth]) => truth !== 0)
    .map(([score, truth]) => (score === 0 ? 0.5 : Math.sign(score) === Math.sign(truth) ? 1 : 0));
  return ordered.length > 0 ? mean(ordered) : null;
}

/** The differences of each pair: of the scores, and of gold. */
function pairs(scores: readonly number[], gold: readonly number[]): [number, number][] {
  return scores.flatMap((score, i) =>
    scores
      .slice(i + 1)
      .map((other, k): [number, number] => [
        score - other,
        (gold[i] as number) - (gold[i + 1 + k] as number),
      ]),
  );
}

/** How the scores of one group move between its judgings: sums of products of place and score, both centred twice. */
export interface Movement {
  xx: number;
  xy: number;
  yy: number;
  freedom: number;
  /** Whether the judge saw an order. */
  placed: boolean;
}

/** Null for fewer than two judgings. */
export function movementOf({ judgings }: JudgedGroup): Movement | null {
  const outputs = judgings[0]?.scores.length ?? 0;
  if (judgings.length < 2 || outputs < 2) return null;
  const y = centredTwice(judgings.map(({ scores }) => scores)).flat();
  const x = centredTwice(judgings.map(({ places }) => places ?? zeros(outputs))).flat();
  const products = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, value, at) => sum + value * (b[at] as number), 0);
  return {
    ...{ xx: products(x, x), xy: products(x, y), yy: products(y, y) },
    freedom: (judgings.length - 1) * (outputs - 1),
    placed: judgings.every(({ places }) => places !== null),
  };
}

/**
 * What re-judging moves. Scores are centred on the judging's mean, because what all outputs of a group get alike moves
 * no advantage, and on the output's mean over the judgings. What is left is split by least squares into what the place
 * explains (`bias`: what being shown last instead of first adds) and the rest, whose variance is `noise`.
 */
export function rejudging(
  groups: readonly Movement[],
): { noise: number; bias: number | null } | null {
  let [xx, xy, yy, freedom, placed] = [0, 0, 0, 0, false];
  for (const group of groups) {
    xx += group.xx;
    xy += group.xy;
    yy += group.yy;
    freedom += group.freedom;
    placed ||= group.placed;
  }
  if (freedom === 0) return null;
  const bias = placed && xx > 1e-12 ? xy / xx : null;
  const left = yy - (bias === null ? 0 : bias * xy);
  const rest = freedom - (bias === null ? 0 : 1);
  return { noise: rest > 0 ? Math.max(0, left) / rest : 0, bias };
}

const zeros = (length: number): number[] => Array.from({ length }, () => 0);

function centredTwice(rows: readonly (readonly number[])[]): number[][] {
  const centred = rows.map((row) => {
    const centre = mean(row);
    return row.map((value) => value - centre);
  });
  const columns = (rows[0] ?? []).map((_, at) => mean(centred.map((row) => row[at] as number)));
  return centred.map((row) => row.map((value, at) => value - (columns[at] as number)));
}

/** The ends of a judge's scale: where none is known, the lowest and the highest score if they recur. */
export function endsOf(
  scores: readonly number[],
  scale: { low: number; high: number } | null,
): ReadonlySet<number> {
  if (scale) return new Set([scale.low, scale.high]);
  const ends = [Math.min(...scores), Math.max(...scores)];
  return new Set(ends.filter((end) => scores.filter((score) => score === end).length > 1));
}

/** A statistic of groups with its interval. Null where the statistic is null. */
export function estimate<Group>(
  groups: readonly Group[],
  statistic: (groups: readonly Group[]) => number | null,
  options: { resamples?: number; seed?: number } = {},
): Estimate | null {
  const { resamples = 400, seed = 0 } = options;
  const value = statistic(groups);
  if (value === null) return null;
  if (groups.length < 6) return { value, low: null, high: null };
  const random = mulberry32(seed);
  const drawn = Array.from({ length: resamples }, () =>
    statistic(groups.map(() => groups[Math.floor(random() * groups.length)] as Group)),
  )
    .filter((one) => one !== null)
    .sort((a, b) => a - b);
  const at = (share: number) => drawn[Math.round(share * (drawn.length - 1))] ?? value;
  return { value, low: at(0.025), high: at(0.975) };
}

/** Spearman's rank correlation, with mean ranks for ties. Null if one of the two does not vary. */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number | null {
  return correlation(ranks(a), ranks(b));
}

export function correlation(a: readonly number[], b: readonly number[]): number | null {
  const [centreA, centreB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (const [at, value] of a.entries()) {
    const [x, y] = [value - centreA, (b[at] as number) - centreB];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : null;
}

function ranks(values: readonly number[]): number[] {
  return values.map((value) => {
    const below = values.filter((other) => other < value).length;
    const alike = values.filter((other) => other === value).length;
    return below + (alike + 1) / 2;
  });
}
