import { describe, expect, it } from "vitest";
import {
  accuracyOf,
  endsOf,
  estimate,
  mean,
  rankAccuracyOf,
  rankCorrelation,
  movementOf,
  rejudging,
  sampleVariance,
  spreadOf,
  withinVariance,
  type JudgedOnce,
} from "./statistics.ts";

const variance = (groups: readonly (readonly number[])[]) => withinVariance(groups.map(spreadOf));
const rejudged = (judgings: readonly JudgedOnce[]) => {
  const movement = movementOf({ judgings, gold: [] });
  return movement && rejudging([movement]);
};

describe("variance within groups", () => {
  it("is that of rewards whitened by one mean and deviation, over groups", () => {
    // All: mean 1, variance (1 + 0 + 0 + 1)/3 = 2/3. Each group: 1/2. So 1/2 over 2/3.
    expect(
      variance([
        [0, 1],
        [1, 2],
      ]),
    ).toBeCloseTo(0.75, 12);
    // Whitened by hand: [−a, 0], [0, a] with a = 1/√(2/3); the variance of each is a²/2 = 3/4.
    const a = 1 / Math.sqrt(2 / 3);
    expect(mean([sampleVariance([-a, 0]), sampleVariance([0, a])])).toBeCloseTo(0.75, 12);
  });

  it("does not change when rewards are scaled or shifted", () => {
    const groups = [
      [0.1, 0.4, 0.2],
      [0.9, 0.7, 0.95],
    ];
    const scaled = groups.map((group) => group.map((value) => 7 * value - 3));
    expect(variance(scaled)).toBeCloseTo(variance(groups) ?? NaN, 12);
  });

  it("is 0 where only groups differ, and where nothing does", () => {
    expect(
      variance([
        [0, 0],
        [1, 1],
      ]),
    ).toBe(0);
    expect(variance([[0.5, 0.5]])).toBe(0);
    expect(variance([])).toBeNull();
  });
});

describe("accuracy", () => {
  it("counts pairs that are ordered alike; a tie agrees only with a tie", () => {
    expect(accuracyOf([0.9, 0.5, 0.5], [1, 0, 0])).toBe(1);
    expect(accuracyOf([0.9, 0.5, 0.4], [1, 0, 0])).toBeCloseTo(2 / 3, 12);
    expect(accuracyOf([0.5, 0.5, 0.5], [1, 0, 0])).toBeCloseTo(1 / 3, 12);
    expect(accuracyOf([0.1, 0.2, 0.3], [3, 2, 1])).toBe(0);
    expect(accuracyOf([0.1], [1])).toBeNull();
  });

  it("of pairs that gold tells apart gives a tie half", () => {
    expect(rankAccuracyOf([0.9, 0.9, 0.1], [1, 0, 0])).toBe(0.75);
    expect(rankAccuracyOf([0.5, 0.5, 0.5], [1, 0, 0])).toBe(0.5);
    expect(rankAccuracyOf([0.9, 0.1], [1, 1])).toBeNull();
  });
});

describe("re-judging", () => {
  it("splits what moves into place and noise", () => {
    // Worth .2 and .4, and .2 more for being last: nothing is left over.
    const biased = [
      { scores: [0.2, 0.6], places: [0, 1] },
      { scores: [0.4, 0.4], places: [1, 0] },
    ];
    expect(rejudged(biased)?.bias).toBeCloseTo(0.2, 12);
    expect(rejudged(biased)?.noise).toBeCloseTo(0, 12);
    // The same scores where no order was seen are noise: ±.1 in four cells, one degree of freedom.
    const unordered = biased.map(({ scores }) => ({ scores, places: null }));
    expect(rejudged(unordered)?.noise).toBeCloseTo(0.04, 12);
    expect(rejudged(unordered)?.bias).toBeNull();
  });

  it("takes nothing for noise that all outputs get alike", () => {
    const judgings = [
      { scores: [0.1, 0.3, 0.2], places: null },
      { scores: [0.6, 0.8, 0.7], places: null },
    ];
    expect(rejudged(judgings)?.noise).toBeCloseTo(0, 12);
  });

  it("needs two judgings", () => {
    expect(rejudged([{ scores: [0.1, 0.3], places: null }])).toBeNull();
  });
});

it("a scale ends where it says, or at what recurs", () => {
  expect(endsOf([0, 0.5, 1, 1], { low: 0, high: 2 })).toEqual(new Set([0, 2]));
  expect(endsOf([0, 0.5, 1, 1], null)).toEqual(new Set([1]));
});

it("an estimate has an interval from six groups on, the same for the same seed", () => {
  const groups = [0.1, 0.4, 0.3, 0.9, 0.2, 0.5];
  const found = estimate(groups, mean);
  expect(found?.value).toBeCloseTo(0.4, 12);
  expect(found?.low).toBeLessThan(0.4);
  expect(found?.high).toBeGreaterThan(0.4);
  expect(estimate(groups, mean)).toEqual(found);
  expect(estimate(groups.slice(0, 5), mean)).toMatchObject({ low: null, high: null });
});

it("ranks correlate, ties with their mean rank", () => {
  expect(rankCorrelation([1, 2, 3], [10, 20, 15])).toBeCloseTo(0.5, 12);
  // Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5, variances 1.5 and 2.
  expect(rankCorrelation([0, 0, 1], [1, 2, 3])).toBeCloseTo(1.5 / Math.sqrt(3), 12);
  expect(rankCorrelation([1, 1], [1, 2])).toBeNull();
});
