import type { TrajectoryGroup } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { assert, array, constantFrom, integer, nat, property } from "fast-check";
import { describe, expect, it } from "vitest";
import { checkBatchesOptions, planBatches, untrainedCursor } from "./batches.ts";
import { drawScenario, newCurriculum, outcomeOf, withOutcomes } from "./curriculum.ts";
import { cursorWith } from "./dealer.ts";
import { group } from "../testing/run-log.ts";

/** Rollouts of each scenario by its number: the first third never succeeds, the second now and then, the last always. */
function play(scenario: number, size: number): TrajectoryGroup {
  const third = Math.floor((3 * scenario) / size);
  const rewards = [
    [0, 0],
    [0, 1],
    [1, 1],
  ][third] as number[];
  return { ...group(rewards), scenario };
}

/** A run on `size` scenarios from its committed cursor on: what it drew in each batch, and the cursors. */
function run(
  size: number,
  options: { steps: number; groupsPerStep: number; seed?: number; floor?: number },
  committed: unknown = null,
) {
  const { floor = 0.2, ...plan } = options;
  const scenarios = Array.from({ length: size }, (_, index) => index);
  const seen: { drawn: number[]; cursor: unknown; shares: unknown }[] = [];
  for (const batch of planBatches(scenarios, { ...plan, curriculum: { floor } }, committed)) {
    const drawn = [...batch.scenarios, ...batch.draw(1)];
    const groups = drawn.map((scenario) => play(scenario, size));
    const cursor = cursorWith(batch.cursor, groups);
    expect(batch.cursor).toBe(cursor);
    seen.push({ drawn, cursor: JSON.parse(JSON.stringify(cursor)), shares: batch.curriculum });
  }
  return seen;
}

describe("a curriculum", () => {
  it("draws each scenario once, and then those that differ; the floor keeps the others", () => {
    const seen = run(30, { steps: 80, groupsPerStep: 4 });
    const first = seen.slice(0, 6).flatMap(({ drawn }) => drawn);
    expect(new Set(first).size).toBe(30);
    const later = seen.slice(6).flatMap(({ drawn }) => drawn);
    const counts = [0, 1, 2].map(
      (third) => later.filter((scenario) => Math.floor(scenario / 10) === third).length,
    );
    // 0.8 of the draws and a third of 0.2 are expected in the middle: 321 of 370, within five deviations.
    expect(counts[1]).toBeGreaterThan(288);
    expect(counts[1]).toBeLessThan(354);
    expect(new Set(later).size).toBeGreaterThan(20);
    for (const { drawn } of seen) expect(new Set(drawn).size).toBe(5);
    expect(seen.at(-1)?.shares).toMatchObject({
      success: expect.any(Number),
      all: { unseen: 0, never: 10, sometimes: 10, always: 10 },
    });
    expect(seen[0]?.shares).toMatchObject({
      drawn: { unseen: 5, never: 0, sometimes: 0, always: 0 },
      all: { unseen: 30 },
    });
  });

  it("resumed anywhere, goes on as if never stopped", () => {
    const stopped = property(
      integer({ min: 1, max: 12 }),
      integer({ min: 1, max: 5 }),
      integer({ min: 1, max: 11 }),
      nat(),
      (size, groupsPerStep, stop, seed) => {
        const options = { groupsPerStep, steps: 12, seed };
        const whole = run(size, options);
        const rest = run(size, options, whole[stop - 1]?.cursor);
        expect(rest).toEqual(whole.slice(stop));
      },
    );
    expect(() => assert(stopped, { numRuns: 30 })).not.toThrow();
  });

  it("draws by floor/n + (1 − floor)·w/Σw", () => {
    const state = withOutcomes(newCurriculum(4), [
      [0, { rate: 0.5, spread: 1 }],
      [1, { rate: 0, spread: 0 }],
      [2, { rate: 0.9, spread: 0.36 }],
      [3, { rate: 1, spread: 0 }],
    ]);
    const random = mulberry32(1);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < 20_000; i += 1) {
      const index = drawScenario(state, new Set([3]), 0.3, random);
      counts[index] = (counts[index] ?? 0) + 1;
    }
    const sum = 1 + 22 / 61;
    const expected = [0.1 + 0.7 / sum, 0.1, 0.1 + (0.7 * 22) / 61 / sum, 0];
    counts.forEach((count, at) => expect(count / 20_000).toBeCloseTo(expected[at] as number, 1.7));
  });

  it("follows the newest groups: half of what is known is theirs, and equal ones are arrived at", () => {
    assert(
      property(array(constantFrom(0, 0.25, 0.5, 1)), constantFrom(0, 0.25, 1), (history, last) => {
        let state = newCurriculum(1);
        const note = (rate: number) => {
          state = withOutcomes(state, [[0, { rate, spread: rate }]]);
        };
        history.forEach(note);
        for (let i = 0; i < 7; i += 1) note(last);
        const fresh = withOutcomes(newCurriculum(1), [[0, { rate: last, spread: last }]]);
        // A level off at most, and none at the ends: whether all or none succeed is exact.
        const off = state.rates.charCodeAt(0) - fresh.rates.charCodeAt(0);
        expect(Math.abs(off)).toBeLessThanOrEqual(last === 0.25 ? 1 : 0);
        expect(state.spreads).toBe(state.rates);
      }),
    );
  });

  it("takes the variance of the success, times 4: p(1 − p) where it is 0 or 1", () => {
    const reward = ({ reward: given }: { reward: number | null }) => given;
    expect(outcomeOf(group([0, 0, 0, 1, null]), reward)).toEqual({ rate: 0.25, spread: 0.75 });
    expect(outcomeOf(group([0.5, 0.5]), reward)).toEqual({ rate: 0.5, spread: 0 });
    expect(outcomeOf(group([null]), reward)).toBeNull();
  });

  it("names the scenario of a success that is none, and the option", () => {
    const reward = ({ reward: given }: { reward: number | null }) => given;
    const said = (scenario: unknown) => () => outcomeOf({ ...group([0, 3]), scenario }, reward);
    expect(said({ ticket: 4711 })).toThrow(
      /success, from 0 to 1, and got 3 in the scenario \{"ticket":4711\}\. .*curriculum\.success/,
    );
    expect(said("long ".repeat(100))).toThrow(/in the scenario "(long ){10,30}.{0,5}…\. Without/);
    expect(said(undefined)).toThrow(/in the scenario undefined\./);
  });

  it("counts a group once, also where its step is tried again", () => {
    const plan = { groupsPerStep: 1, steps: 2, curriculum: true };
    const [batch] = planBatches(["a"], plan, null);
    const first = batch?.cursor;
    const played = [{ ...group([0, 1, 1, 1]), scenario: "a" }];
    const once = first && cursorWith(first, played);
    // By the cursor of a copy that was made before.
    expect(first && cursorWith(first, played)).toEqual(once);
    expect(once?.curriculum?.rates).not.toBe("-");
    expect(once && untrainedCursor(once).curriculum).toEqual(once?.curriculum);
  });

  it("begins anew where it was switched on, and is forgotten where it was switched off", () => {
    const plan = { groupsPerStep: 2, steps: 9 };
    const [plain] = planBatches([1, 2, 3], plan, null);
    const [on] = planBatches([1, 2, 3], { ...plan, curriculum: true }, plain?.cursor);
    expect(on?.cursor).toMatchObject({ epoch: 1, position: 2, step: 2 });
    expect(on?.cursor.curriculum?.rates).toBe("---");
    const [off] = planBatches([1, 2, 3], plan, on?.cursor);
    expect(off?.cursor).toMatchObject({ epoch: 2, position: 2, step: 3 });
    expect(off?.cursor).not.toHaveProperty("curriculum");
    const broken = { ...on?.cursor, curriculum: { drawn: 1, rates: "0", spreads: "0" } };
    expect(() => [...planBatches([1, 2, 3], plan, broken)]).toThrow(/not made by batches/);
  });

  it("refuses options that mean nothing", () => {
    const plan = { groupsPerStep: 1, steps: 1 };
    const check = (curriculum: object) => checkBatchesOptions([1], { ...plan, curriculum });
    expect(() => check({ floor: 0 })).toThrow(/curriculum.floor must be .*above 0/);
    expect(() => check({ flor: 1 })).toThrow(/flor/);
    expect(() => check({ success: 1 })).toThrow(/curriculum.success/);
    const many = Array.from({ length: 100_001 }, (_, index) => index);
    expect(() => checkBatchesOptions(many, { ...plan, curriculum: true })).toThrow(
      /at most 100000/,
    );
  });
});
