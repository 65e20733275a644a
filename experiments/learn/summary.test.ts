import { expect, it } from "vitest";
import type { Contender } from "./run-record.ts";
import { draw } from "./picture.ts";
import { median, summarise, timeTo, type JudgedRun } from "./summary.ts";

/** Judged after steps 0, 2 and 4; each scenario scores what is given. */
function run(contender: Contender, seed: number, perStep: number, after: number[][]): JudgedRun {
  return {
    contender,
    seed,
    startSeconds: 5,
    promptIds: [1],
    steps: [1, 2, 3, 4].map((step) => ({
      step,
      seconds: step * perStep,
      processorSeconds: step,
      reward: 0,
      tokens: 2,
      entropy: 1,
    })),
    judgements: after.map((scores, index) => ({
      step: 2 * index,
      judgement: { scores, means: {} },
    })),
  };
}

const base = [0, 0, 1, 1];
const runs = {
  trl: [
    run("trl", 1, 10, [base, [0, 1, 1, 1], [1, 1, 1, 1]]),
    run("trl", 2, 12, [base, [0, 1, 1, 1], [1, 1, 1, 1]]),
  ],
  hone: [
    run("hone", 1, 2, [base, [0, 1, 1, 1], [1, 1, 1, 1]]),
    run("hone", 2, 2, [base, [0, 0, 1, 1], [1, 1, 1, 1]]),
  ],
};

it("compares scores after the same samples, scenario by scenario", () => {
  const { base: before, rows } = summarise(runs);
  expect(before).toBe(0.5);
  expect(rows.map(({ trl, hone }) => [trl, hone])).toEqual([
    [0.5, 0.5],
    [0.75, 0.625],
    [1, 1],
  ]);
  // The same policy judged twice differs by nothing, with certainty.
  expect(rows[0]).toMatchObject({ difference: 0, low: 0, high: 0 });
  // One scenario of one seed.
  expect(rows[1]?.difference).toBe(-0.125);
  expect(rows[1]?.low).toBeLessThan(-0.25);
  expect(rows[1]?.high).toBe(0);
});

it("finds the time to the goal on the line between two judged policies", () => {
  const { goal, secondsToGoal, timeRatio, secondsPerStep } = summarise(runs);
  expect(goal).toBe(0.875);
  // From .75 at the second step to 1 at the fourth: half of the way; from .5 it is three quarters.
  expect(secondsToGoal.trl).toEqual([30, 36]);
  expect(secondsToGoal.hone).toEqual([6, 7]);
  expect(timeRatio).toBeCloseTo((6 / 30 + 7 / 36) / 2, 10);
  expect(secondsPerStep).toEqual({ trl: 11, hone: 2 });
  expect(timeTo([{ step: 0, seconds: 0, score: 0.5 }], 0.6)).toBeNull();
});

it("takes the mean of the middle two of an even number", () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([3, 1, 2])).toBe(2);
});

it("draws a line for each run and one for each median", () => {
  const picture = { title: "a & b", label: "score", goal: 0.8, references: [] };
  const svg = draw(picture, runs);
  expect(svg.match(/<polyline/g)).toHaveLength(6);
  expect(svg).toContain("a &amp; b");
  expect(svg).not.toContain("NaN");
});
