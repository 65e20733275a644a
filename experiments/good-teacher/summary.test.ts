import type { TeacherRow } from "@hone/recipes";
import { expect, it } from "vitest";
import { ordersOf, summaryText } from "./summary.ts";

const row = (reward: string, variance: number, accuracy: number, gain: number): TeacherRow => ({
  ...{ reward, onPolicyShare: null, variance, combined: (variance + accuracy) / 2, gain },
  accuracy: { onPolicy: accuracy, offPolicy: accuracy, mean: accuracy },
  ...{ low: null, high: null },
});

// Variance alone decides the gain; what is accurate is flat.
const rows = [
  row("none", 0.2, 0.7, 0.1),
  row("some", 0.5, 0.72, 0.5),
  row("more", 0.8, 0.74, 0.9),
  row("truth", 0.4, 1, 0.4),
  row("flat", 0.1, 1, 0),
];

it("says how far the combined score is ahead of accuracy, with the same draws for both", () => {
  const [combined, accuracy] = ordersOf(
    new Map([
      [1, rows],
      [2, rows],
    ]),
  );
  expect(combined?.bySeed).toEqual([expect.closeTo(0.8, 9), expect.closeTo(0.8, 9)]);
  expect(combined?.combinedAhead).toEqual({ value: 0, low: 0, high: 0 });
  const { value, low, high } = accuracy!.combinedAhead;
  expect(value).toBeCloseTo(combined!.mean.value! - accuracy!.mean.value!, 12);
  expect(low).toBeLessThan(value!);
  expect(high).toBeGreaterThan(value!);
  // Two seeds that say the same say it together too.
  expect(combined?.pooled.value).toBeCloseTo(0.8, 9);
});

it("prints a row for each reward, and the control", () => {
  const bySeed = new Map([[1, rows]]);
  const control = { gain: 0.05, low: -0.1, high: 0.2 };
  const text = summaryText(bySeed, ordersOf(bySeed), [control as never]);
  expect(text).toContain("truth | 0.40 | 1.00 | 1.00 | 0.70 | 0.40 (0.40)");
  expect(text).toContain("shuffled rewards | | | | | 0.05 [-0.10, 0.20]");
});
