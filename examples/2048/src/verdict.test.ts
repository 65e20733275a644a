import { expect, it } from "vitest";
import { exitCodeOf, outcomeOf, outcomeText, tooFewSeeds } from "./verdict.ts";

it.each([
  [{ low: 75, high: 133 }, "learnt", 0, "lies above 0"],
  [{ low: -3, high: 12 }, "unclear", 1, "the interval holds 0"],
  // All games equal: nothing was shown.
  [{ low: 0, high: 0 }, "unclear", 1, "the interval holds 0"],
  [{ low: -120, high: -80 }, "worse", 1, "It got worse"],
] as const)("of %j says %s and exits with %d", (score, outcome, code, text) => {
  expect(outcomeOf(score)).toBe(outcome);
  expect(exitCodeOf(score, { ungated: false })).toBe(code);
  expect(exitCodeOf(score, { ungated: true })).toBe(0);
  expect(outcomeText(score)).toContain(text);
});

it("lets no handful of games decide", () => {
  expect(tooFewSeeds(2, { ungated: false })).toContain("--verdict-seeds 2 is too few");
  expect(tooFewSeeds(2, { ungated: true })).toBeNull();
  expect(tooFewSeeds(16, { ungated: false })).toBeNull();
});
