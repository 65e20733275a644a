import { expect, it } from "vitest";
import { budgetReached } from "./budget.ts";

const ahead = { step: { seconds: 60, usd: 0.1 }, verdict: { seconds: 120, usd: 0 } };
const spent = { seconds: 3600, usd: 1, steps: 10 };

it("stops before the step that would leave nothing for the verdict", () => {
  const at = (usd: number) => budgetReached(spent, { usd, usdPerHour: 2 }, ahead)?.what;
  // 3 dollars so far; another step and the verdict take 180 s of the machine and .10.
  expect(at(3.21)).toBeUndefined();
  expect(at(3.19)).toBe("usd");
  const seconds = (gpuSeconds: number) =>
    budgetReached(spent, { gpuSeconds, gpus: 2 }, ahead)?.what;
  expect(seconds(7560)).toBeUndefined();
  expect(seconds(7559)).toBe("gpuSeconds");
});

it("counts steps, and knows no limit where none is given", () => {
  expect(budgetReached(spent, { steps: 10 }, ahead)).toMatchObject({ what: "steps" });
  expect(budgetReached(spent, { steps: 11 }, ahead)).toBeNull();
  expect(budgetReached(spent, { usdPerHour: 100 }, ahead)).toBeNull();
});
