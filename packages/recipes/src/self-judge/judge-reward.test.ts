import { describe, expect, it } from "vitest";
import { coinOf } from "./coin.ts";
import { distanceReward, rankReward, scaledGold } from "./judge-reward.ts";

describe("a judgement's reward by rank", () => {
  it("is the share of the pairs that gold tells apart, a tie counting half", () => {
    // Pairs told apart: (0,1), (0,2), (1,3), (2,3) of gold 1, 0, 0, 1.
    expect(rankReward([0.9, 0.1, 0.2, 0.8], [1, 0, 0, 1], 0.05)).toBe(1);
    expect(rankReward([0.9, 0.9, 0.1, 0.8], [1, 0, 0, 1], 0.05)).toBe((0.5 + 1 + 0 + 1) / 4);
  });
  it("gives nothing for one score for all, and nothing for what cannot be read", () => {
    expect(rankReward([0.5, 0.5, 0.5], [1, 0, 0], 0.05)).toBe(0);
    expect(rankReward([0.5, 0.5, 0.51], [0, 0, 1], 0.05)).toBe(0);
    expect(rankReward(null, [1, 0], 0.05)).toBe(0);
  });
  it("says nothing where gold tells none apart", () => {
    expect(rankReward([0.1, 0.9], [1, 1], 0.05)).toBeNull();
    expect(rankReward(null, [0, 0], 0.05)).toBeNull();
  });
});

describe("a judgement's reward as Trinity-RFT gives it", () => {
  it("is 1 − mean |score − (gold + .1)/1.2|", () => {
    // Right with format: 1.1 → 1. Wrong without: −.1 → 0. Wrong with: .1 → 1/6.
    for (const [gold, scaled] of [
      [1.1, 1],
      [-0.1, 0],
      [0.1, 1 / 6],
    ] as const) {
      expect(scaledGold(gold)).toBeCloseTo(scaled, 12);
    }
    expect(distanceReward([1, 0, 0.5], [1.1, -0.1, 0.1])).toBeCloseTo(1 - (0.5 - 1 / 6) / 3, 12);
    expect(distanceReward(null, [1.1, -0.1])).toBe(0);
  });
  it("pays a judge that always says .5, which is why it is not the default", () => {
    // Golds 1.1 and .1: scaled 1 and 1/6, so .5 and 1/3 away.
    expect(distanceReward([0.5, 0.5], [1.1, 0.1])).toBeCloseTo(1 - (0.5 + 1 / 3) / 2, 12);
    expect(rankReward([0.5, 0.5], [1.1, 0.1], 0.05)).toBe(0);
  });
});

describe("the coin of a scenario", () => {
  it("falls alike in every epoch, whatever the order of its keys", () => {
    expect(coinOf(3, { a: 1, b: [2, { c: 3, d: 4 }] })).toBe(
      coinOf(3, { b: [2, { d: 4, c: 3 }], a: 1 }),
    );
    expect(coinOf(3, "x")).not.toBe(coinOf(4, "x"));
  });
  it("gives about the share that was asked for", () => {
    const coins = Array.from({ length: 5000 }, (_, n) => coinOf(1, { n }));
    const share = coins.filter((coin) => coin < 0.2).length / coins.length;
    // Four standard errors of a share of .2 in 5000.
    expect(Math.abs(share - 0.2)).toBeLessThan(4 * Math.sqrt((0.2 * 0.8) / 5000));
  });
});
