import { describe, expect, it } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import type { RewardFunction } from "./reward-function.ts";
import { lastNumber } from "./number-text.ts";
import { exactMatch, lengthPenalty, numericMatch } from "./text-rewards.ts";

const give = (fn: RewardFunction, text: string, rest = {}) =>
  fn(trajectory(text, rest), { group: group([]), index: 0 });

function valueIn(text: string): number | null {
  const value = lastNumber(text);
  return value && Number(value.top) / Number(value.bottom);
}

describe("matches", () => {
  it("exact", () => {
    const fn = exactMatch({ expected: () => " Paris " });
    expect(give(fn, "Paris")).toBe(1);
    expect(give(fn, "I think <answer>Paris</answer>.")).toBe(1);
    expect(give(fn, "paris")).toBe(0);
    const loose = exactMatch({ expected: () => "Paris", normalize: (t) => t.toLowerCase() });
    expect(give(loose, "paris")).toBe(1);
    expect(give(exactMatch({ expected: () => null }), "x")).toBeNull();
  });

  it.each([
    ["It is 1,234.50 euros.", 1234.5],
    ["2 + 2 = 4.", 4],
    ["-3", -3],
    ["about 2e3 or 5E-1", 0.5],
    ["x2 and v1.2.3", null],
    ["1,2,3", 3],
    ["none", null],
    ["1e999", null],
    ["1,2,345", 2345],
    ["12,1,234", 1234],
    ["-1234,567,890", 567890],
    ["-1,234,567", -1234567],
    ["1,2345", null],
    ["It is 1,234, I think", 1234],
    ["x1,234.5e1", null],
    ["+.5", 0.5],
  ])("the last number of %j", (text, expected) => {
    expect(valueIn(text)).toBe(expected);
  });

  it("the last number of a long list takes no longer to find", () => {
    expect(valueIn("1" + ",111".repeat(400_000) + ",")).toBeNull();
    expect(valueIn("1" + ",1111".repeat(400_000))).toBe(1111);
    expect(valueIn("7 " + "-".repeat(400_000) + "1.1.".repeat(400_000))).toBeNull();
  });

  it("numeric", () => {
    const fn = numericMatch({ expected: () => 3.14, tolerance: 0.01 });
    expect(give(fn, "Roughly 3.145")).toBe(1);
    expect(give(fn, "Roughly 3.2")).toBe(0);
    expect(give(fn, "No idea")).toBe(0);
  });

  it("length", () => {
    const fn = lengthPenalty({ maxTokens: 100, softTokens: 20 });
    const usage = (completionTokens: number) => ({
      usage: { completions: 1, promptTokens: 1, completionTokens },
    });
    expect([80, 90, 100, 101].map((n) => give(fn, "x", usage(n)))).toEqual([0, -0.5, -1, -1]);
  });
});
