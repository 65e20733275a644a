import type { TrajectoryGroup } from "@hone/core";
import { describe, expect, it } from "vitest";
import type { Batch } from "./batch.ts";
import { planBatches } from "./batches.ts";
import { fillBatch } from "./fill.ts";
import { group } from "../testing/run-log.ts";

const scenarios = Array.from({ length: 10 }, (_, index) => index);
const plan = { groupsPerStep: 4, steps: 3, shuffle: false };

/** The first batch of a run whose next ones are dealt out by `next`. */
function begin(committed: unknown = null) {
  const batches = planBatches(scenarios, plan, committed);
  const next = () => batches.next().value as Batch<number>;
  return { batch: next(), next };
}

/** Plays scenarios; even ones have equal rewards. */
const halves = (rounds: number[][]) => async (played: readonly number[]) => {
  rounds.push([...played]);
  return played.map((n) => ({ ...group(n % 2 ? [0, 1] : [1, 1]), scenario: n }));
};

describe("fillBatch", () => {
  it("replaces groups with equal rewards until none is missing, and the cursor is behind all that was drawn", async () => {
    const { batch, next } = begin();
    const rounds: number[][] = [];
    const { groups, fill } = await fillBatch(batch, halves(rounds));
    expect(rounds).toEqual([[0, 1, 2, 3], [4, 5], [6], [7]]);
    expect(fill).toEqual({ wanted: 4, drawn: 8, equal: 4, kept: 4, missing: 0 });
    expect(groups.map(({ scenario }) => scenario)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(batch.cursor).toMatchObject({ epoch: 0, position: 8, step: 1, trained: 1 });
    // The next batch goes on behind it, in this program and in one that begins at the committed cursor.
    expect(next().scenarios).toEqual([8, 9, 0, 1]);
    expect(begin(JSON.parse(JSON.stringify(batch.cursor))).batch.scenarios).toEqual([8, 9, 0, 1]);
  });

  it("ends at its bound, and says what is missing", async () => {
    const rounds: number[][] = [];
    const play = async (played: readonly number[]) => {
      rounds.push([...played]);
      return played.map(() => group([0, 0]));
    };
    const { groups, fill } = await fillBatch(begin().batch, play, { maxFactor: 2.5 });
    expect(rounds.map(({ length }) => length)).toEqual([4, 4, 2]);
    expect(fill).toEqual({ wanted: 4, drawn: 10, equal: 10, kept: 0, missing: 4 });
    expect(groups).toHaveLength(10);
    const once = await fillBatch(begin().batch, play, { maxFactor: 1 });
    expect(once.fill).toMatchObject({ drawn: 4, missing: 4 });
  });

  it("does not replace groups that a failed judge or failed rollouts left without a comparison", async () => {
    const failed = (reason: string): TrajectoryGroup => ({
      ...group([0, 1]),
      metadata: { failed: reason },
    });
    const rounds: number[] = [];
    const play = async (played: readonly number[]) => {
      rounds.push(played.length);
      if (rounds.length > 1) return played.map(() => group([0, 1]));
      return [failed("judge_failed"), group([1]), group([null, null]), failed("zero_variance")];
    };
    const { fill } = await fillBatch(begin().batch, play);
    // The judge found that all did the same: that one is replaced.
    expect(rounds).toEqual([4, 1]);
    expect(fill).toEqual({ wanted: 4, drawn: 5, equal: 1, kept: 1, missing: 0 });
  });

  it("refuses a batch that is over, and bounds that mean nothing", async () => {
    const { batch, next } = begin();
    next();
    expect(() => batch.draw(1)).toThrow(/after the next one had been dealt out/);
    const play = async () => [];
    await expect(fillBatch(next(), play, { maxFactor: 0.5 })).rejects.toThrow(/from 1 to 100/);
    await expect(fillBatch(next(), play, { most: 3 } as never)).rejects.toThrow(/most/);
  });
});
