import { mulberry32 } from "@hone/core";
import { describe, expect, it } from "vitest";
import { alarmsFor, type Evidence, type WatchedStep } from "./alarms.ts";

interface Course {
  reward?: (step: number) => number;
  top?: (step: number) => number;
  heldOut?: (step: number) => number;
  same?: (step: number) => number;
  degenerate?: (step: number) => number;
  relative?: boolean;
}

/** A run whose figures follow these courses, with the noise of a step of 64 rollouts. */
function run(steps: number, course: Course, seed = 1): WatchedStep[] {
  const random = mulberry32(seed);
  const noise = () => 0.06 * (random() + random() - 1);
  return Array.from({ length: steps }, (_, n) => {
    const step = n + 1;
    const { reward = () => 0.3, top = () => 0.3, heldOut, same = () => 0.1 } = course;
    return {
      step,
      relative: course.relative ?? false,
      reward: { mean: reward(step) + noise(), low: 0, most: 1, top: top(step) },
      same: { share: same(step), scenarios: 8 },
      degenerate: course.degenerate?.(step) ?? 0,
      heldOut: heldOut ? { mean: heldOut(step) + noise(), standardError: 0.05, most: 1 } : null,
    };
  });
}

/** Each alarm with the first step that it is raised at. */
function raised(steps: readonly WatchedStep[], evidence: Evidence = { metricRisen: null }) {
  const first: Record<string, number> = {};
  for (let count = 1; count <= steps.length; count += 1) {
    for (const { code, step } of alarmsFor(steps.slice(0, count), evidence)) first[code] ??= step;
  }
  return first;
}

const learns = (step: number) => 0.2 + 0.7 * Math.min(1, step / 30);
const seeds = Array.from({ length: 20 }, (_, seed) => seed);

describe("no alarm", () => {
  it.each<[string, Course]>([
    ["in a run that learns", { reward: learns, top: learns, heldOut: learns }],
    ["in a run that learns nothing", { heldOut: () => 0.3 }],
    [
      "in a run that gets worse by both",
      { reward: (s) => 0.8 - s / 80, heldOut: (s) => 0.8 - s / 80 },
    ],
    [
      "where a task is learnt to the end",
      {
        reward: (s) => Math.min(1, s / 20),
        top: (s) => Math.min(1, s / 20),
        heldOut: (s) => Math.min(1, s / 20),
      },
    ],
    ["where all began perfect", { reward: () => 1, top: () => 1 }],
    ["where one answer was most frequent from the start", { same: () => 0.95 }],
    ["where texts repeat themselves from the start", { degenerate: () => 0.8 }],
  ])("%s", (_, course) => {
    for (const seed of seeds) expect(raised(run(60, course, seed))).toEqual({});
  });

  it("where learning sets in after a while, over some steps", () => {
    const late = (step: number) => 0.2 + 0.7 * Math.min(1, Math.max(0, step - 20) / 10);
    for (const seed of seeds) {
      expect(raised(run(50, { reward: late, top: late, heldOut: late }, seed))).toEqual({});
    }
  });
});

it("the reward rises while the held-out judge falls, also after an honest beginning", () => {
  const truth = (step: number) => (step < 20 ? learns(step) : 0.67 - (step - 20) * 0.05);
  for (const seed of seeds) {
    const { held_out_down: at = Infinity } = raised(
      run(40, { reward: learns, heldOut: truth }, seed),
    );
    expect(at).toBeGreaterThan(20);
    expect(at).toBeLessThan(34);
  }
});

it("where rewards are relative, the held-out judge's fall is enough", () => {
  const course = { relative: true, reward: () => 0.5, heldOut: (step: number) => 0.9 - step / 40 };
  expect(raised(run(40, course))).toHaveProperty("held_out_down");
  expect(raised(run(40, { ...course, relative: false }))).not.toHaveProperty("held_out_down");
});

it("perfect scores that nothing confirms, or that come at once", () => {
  const slow = (step: number) => Math.min(1, step / 20);
  const course = { reward: slow, top: slow };
  expect(raised(run(30, course))).toEqual({});
  expect(raised(run(30, { ...course, heldOut: () => 0.2 }))).toEqual({ perfect_scores: 20 });
  expect(raised(run(30, course), { metricRisen: false })).toEqual({ perfect_scores: 20 });
  expect(raised(run(30, course), { metricRisen: true })).toEqual({});
  const still = run(30, { ...course, heldOut: () => 0.2 }).map((one) => ({
    ...one,
    heldOut: { mean: 0.2, standardError: 0, most: 0.2 },
  }));
  expect(raised(still)).toEqual({});
  const sudden = (step: number) => (step < 8 ? 0.3 : 1);
  expect(raised(run(30, { reward: sudden, top: sudden }))).toMatchObject({ perfect_scores: 9 });
});

it("one answer for every scenario, unless a judge that never trains finds it good", () => {
  const same = (step: number) => Math.min(0.97, step / 20);
  expect(raised(run(30, { same }))).toEqual({ same_output: 18 });
  const reward = (step: number) => Math.min(1, step / 20);
  expect(raised(run(30, { same, reward, top: reward, heldOut: reward }))).toEqual({});
});

it("text that got degenerate", () => {
  const degenerate = (step: number) => step / 20;
  expect(raised(run(12, { degenerate }))).toEqual({ degenerate_text: 10 });
});

it("a jump after a plateau", () => {
  const jumps = (step: number) => (step <= 15 ? 0.3 : 0.8);
  for (const seed of seeds) {
    expect(raised(run(25, { reward: jumps }, seed))).toEqual({ reward_jump: 17 });
  }
});
