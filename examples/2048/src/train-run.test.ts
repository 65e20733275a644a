import { expect, it } from "vitest";
import { rateOf } from "./train-run.ts";

it("lets the learning rate fall linearly to its share at the last step", () => {
  const falling = { learningRate: 2, lastRate: 0.1, steps: 10 };
  expect(rateOf(falling, 0)).toBe(2);
  expect(rateOf(falling, 9)).toBeCloseTo(0.2, 12);
  expect(rateOf({ ...falling, lastRate: 1 }, 5)).toBe(2);
  expect(rateOf({ ...falling, steps: 1 }, 0)).toBe(2);
});
