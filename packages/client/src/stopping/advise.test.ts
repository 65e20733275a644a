import { mulberry32 } from "@hone/core";
import { describe, expect, it } from "vitest";
import { adviseStop, type Evaluated } from "./advise.ts";
import { phasesOf } from "./phases.ts";
import { readGoals, requireStoppable, type GoalsGiven } from "./stop-options.ts";

/** Evaluations of 32 scenarios whose mean follows `level`, each answer right or wrong by chance. */
function curve(
  steps: readonly number[],
  level: (step: number) => number,
  { seed = 1, secondary }: { seed?: number; secondary?: (step: number) => number } = {},
): Evaluated[] {
  const random = mulberry32(seed);
  const hard = Array.from({ length: 32 }, () => 0.6 * (random() - 0.5));
  return steps.map((step) => ({
    step,
    scores: new Map(hard.map((by, n) => [String(n), random() < level(step) + by ? 1 : 0])),
    secondary: secondary ? { length: secondary(step) } : {},
  }));
}

/** Scores that are the level itself, so that nothing is left to chance. */
const exact = (steps: readonly number[], level: (step: number) => number): Evaluated[] =>
  steps.map((step) => ({
    step,
    scores: new Map(Array.from({ length: 8 }, (_, n) => [String(n), level(step) + n / 100])),
    secondary: {},
  }));

const every5 = (last: number) => Array.from({ length: last / 5 + 1 }, (_, n) => 5 * n);
const risesTo40 = (step: number) => 0.2 + 0.6 * Math.min(1, step / 40);
const reasonsOf = (evaluations: readonly Evaluated[], goals: GoalsGiven = {}) =>
  adviseStop(evaluations, readGoals(goals)).reasons.map(({ reason }) => reason);

describe("a plateau", () => {
  it("is advised once the score has stood still for its steps, and the curve's phases are named", () => {
    const evaluations = exact(every5(80), risesTo40);
    expect(reasonsOf(exact(every5(45), risesTo40))).toEqual([]);
    expect(reasonsOf(evaluations)).toEqual(["plateau"]);
    const { phases, reasons } = adviseStop(evaluations, readGoals({}));
    // It shows as one ten steps after it has begun.
    expect(phases).toEqual([
      { name: "rising", from: 0, to: 45 },
      { name: "plateau", from: 45, to: 80 },
    ]);
    expect(reasons[0]?.message).toMatch(/seems to be learnt/);
  });

  it("is rarely seen while the score rises", () => {
    const seeds = Array.from({ length: 40 }, (_, seed) => seed);
    const early = seeds.filter((seed) =>
      reasonsOf(curve(every5(20), risesTo40, { seed }), { plateau: 20 }).includes("plateau"),
    );
    expect(early.length).toBeLessThan(4);
    const late = seeds.filter((seed) =>
      reasonsOf(curve(every5(80), risesTo40, { seed })).includes("plateau"),
    );
    expect(late.length).toBeGreaterThan(20);
  });

  it("has at least ten steps and three evaluations", () => {
    const still = (steps: readonly number[]) => curve(steps, () => 1);
    expect(reasonsOf(still([0, 5]))).toEqual([]);
    expect(reasonsOf(still([0, 2, 4, 6, 8]))).toEqual([]);
    expect(reasonsOf(still([0, 10]))).toEqual([]);
    expect(reasonsOf(still([0, 5, 10]))).toEqual(["plateau"]);
    expect(reasonsOf(still([0, 10, 20]))).toEqual(["plateau"]);
    expect(() => readGoals({ plateau: 9 })).toThrow(/at least 10/);
  });

  it("says where nothing was ever learnt, and does not call that a plateau", () => {
    const evaluations = curve(every5(20), () => 1);
    const { phases, reasons } = adviseStop(evaluations, readGoals({}));
    expect(phases).toEqual([{ name: "flat", from: 0, to: 20 }]);
    expect(reasons[0]?.message).toMatch(/has not risen since the beginning/);
  });

  it("waits for a secondary goal that still falls", () => {
    const secondary = (step: number) => 100 - step;
    const evaluations = curve(every5(80), () => 1, { secondary });
    expect(reasonsOf(evaluations)).toEqual(["plateau"]);
    const goals = readGoals({ secondary: { length: true } });
    const { reasons, notes } = adviseStop(evaluations, goals);
    expect(reasons).toEqual([]);
    expect(notes[0]).toMatch(/length still fall/);
    const settled = curve(every5(80), () => 1, { secondary: (step) => 100 - Math.min(40, step) });
    expect(adviseStop(settled, goals).reasons).toHaveLength(1);
  });
});

it("a score that falls is a phase of its own", () => {
  const evaluations = curve(every5(60), (step) => (step <= 30 ? step / 30 : 1 - (step - 30) / 30));
  expect(phasesOf(evaluations, 10).at(-1)?.name).toBe("falling");
});

it("a target is reached by its whole interval, or twice in a row", () => {
  const fixed = (step: number, right: number): Evaluated => ({
    step,
    scores: new Map(Array.from({ length: 20 }, (_, n) => [String(n), n < right ? 1 : 0])),
    secondary: { length: 50 },
  });
  const goals = { target: 0.5 };
  expect(reasonsOf([fixed(0, 2), fixed(5, 11)], goals)).toEqual([]);
  expect(reasonsOf([fixed(0, 2), fixed(5, 11), fixed(10, 11)], goals)).toEqual(["target"]);
  expect(reasonsOf([fixed(0, 2), fixed(5, 17)], goals)).toEqual(["target"]);
  const bounded = readGoals({ ...goals, secondary: { length: 40 } });
  const { reasons, notes } = adviseStop([fixed(0, 2), fixed(5, 17)], bounded);
  expect(reasons).toEqual([]);
  expect(notes).toEqual(["A goal is reached, but not yet with length of at most 40 (it is 50)."]);
});

it("a margin is beaten by the whole interval of the difference", () => {
  const evaluations = curve([0, 5], (step) => (step === 0 ? 0.1 : 0.9));
  expect(reasonsOf(evaluations, { margin: 0.3 })).toEqual(["margin"]);
  expect(reasonsOf(evaluations, { margin: 0.9 })).toEqual([]);
});

it("a win rate is counted over scenarios, by the judge's word where there is one", () => {
  const [base, trained] = curve([0, 5], (step) => (step === 0 ? 0.1 : 0.9)) as [
    Evaluated,
    Evaluated,
  ];
  // Half of 1 − 0 pairs and of ties: not each scenario is won.
  expect(reasonsOf([base, trained], { winRate: 0.7 })).toEqual(["win-rate"]);
  expect(reasonsOf([base, trained], { winRate: 0.99 })).toEqual([]);
  const lost = new Map([...trained.scores.keys()].map((key) => [key, 0]));
  expect(reasonsOf([base, { ...trained, wins: lost }], { winRate: 0.7 })).toEqual([]);
});

it("what stops a run has to be wanted, and looked for", () => {
  const goals = readGoals({ target: 1 });
  expect(() => requireStoppable(["target"], goals, 5)).not.toThrow();
  expect(() => requireStoppable(["margin"], goals, 5)).toThrow(/goals\.margin says nothing/);
  expect(() => requireStoppable([], goals, 0)).toThrow(/Give evalEvery/);
  expect(() => requireStoppable(["better" as never], goals, 5)).toThrow(/not "better"/);
});
