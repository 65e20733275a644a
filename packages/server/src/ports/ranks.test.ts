import { expect, test } from "vitest";
import { compareRanks } from "./ranks.ts";

test("the first number that differs decides", () => {
  expect(compareRanks([0, 9], [1, 0])).toBeLessThan(0);
  expect(compareRanks([1, 3], [1, 2])).toBeGreaterThan(0);
  expect(compareRanks([1, 2], [1, 2])).toBe(0);
  const ranks = [
    [1, 0],
    [0, 2],
    [0, 1],
  ];
  expect(ranks.toSorted(compareRanks)).toEqual([
    [0, 1],
    [0, 2],
    [1, 0],
  ]);
});
