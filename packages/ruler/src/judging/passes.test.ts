import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readAnswer } from "./answer.ts";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "./score-group.ts";
import { positionBias, seededOrders } from "./seeded-order.ts";
import * as steps from "../testing/judge-steps.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";

let judge: ScriptedJudge;
async function start(step: steps.JudgeStep, script: steps.JudgeStep[] = []): Promise<void> {
  judge = await ScriptedJudge.start({ script, otherwise: step });
}
beforeEach(() => {
  // Orders follow from it: under another one two of them might be the same.
  vi.stubEnv("HONE_RULER_SECRET", "the secret of these tests");
  vi.spyOn(console, "warn").mockReturnValue();
});
afterEach(async () => {
  await judge?.close();
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

/** Gives what an attempt is worth, and up to 0.2 more the later it is shown. */
const fondOfTheLast = steps.score((attempt, { attempts }) => {
  const place = attempts.indexOf(attempt) / (attempts.length - 1);
  return Number.parseFloat(attempt.finalText) + 0.2 * place;
});

const orderOf = (index: number): string[] =>
  readJudgePrompt(judge.requests[index]?.body.messages ?? []).attempts.map(
    ({ finalText }) => finalText,
  );

describe("order", () => {
  it("is that of the seed, and not that of the group", async () => {
    await start(fondOfTheLast);
    const endings = ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"];
    for (const seed of [0, 0, 1, 2]) {
      await rulerScoreGroup(groupOf(...endings), judge.endpoint, { seed, cache: false });
    }
    expect(orderOf(0)).toEqual(orderOf(1));
    expect(new Set([0, 2, 3].map((index) => orderOf(index).join())).size).toBe(3);
    expect(orderOf(0)).not.toEqual(endings);
  });

  it("cancels out over two passes, and the bias is told", async () => {
    await start(fondOfTheLast);
    const scored = await rulerScoreGroup(groupOf("0.1", "0.3", "0.5", "0.7"), judge.endpoint, {
      passes: 2,
      cache: false,
    });
    for (const [index, reward] of rewardsOf(scored).entries()) {
      expect(reward).toBeCloseTo([0.2, 0.4, 0.6, 0.8][index] ?? 0, 10);
    }
    expect(judge.requests).toHaveLength(2);
    expect(scored.metrics["ruler/position_bias"]).toBeCloseTo(0.2, 10);
    expect(scored.metrics["ruler/pass_spread"]).toBeGreaterThan(0.05);
    expect(scored.judgement.trajectories).toHaveLength(2);
    expect(scored.trajectories[0]?.metrics["ruler_score_std"]).toBeGreaterThan(0);
  });

  it("one pass says nothing of bias", async () => {
    await start(fondOfTheLast);
    const scored = await rulerScoreGroup(groupOf("0.1", "0.3"), judge.endpoint, { cache: false });
    expect(scored.judgement).toMatchObject({ positionBias: null, passSpread: null });
    expect(scored.metrics).not.toHaveProperty("ruler/position_bias");
  });

  it("averages the passes that hold, and counts the others", async () => {
    const bad = steps.garbage();
    await start(fondOfTheLast, [bad, bad, bad]);
    const scored = await rulerScoreGroup(groupOf("0.1", "0.3"), judge.endpoint, {
      passes: 3,
      cache: false,
      concurrency: 1,
    });
    expect(scored.metrics["ruler/failed_passes"]).toBeLessThan(3);
    expect(scored.judgement.status).toBe("judged");
    expect(rewardsOf(scored).every((reward) => reward !== null && reward <= 0.5)).toBe(true);
  });
});

describe("seededOrders", () => {
  it("gives permutations, each second one the reverse of the one before", () => {
    fc.assert(
      fc.property(fc.nat(12), fc.integer({ min: 1, max: 6 }), fc.integer(), (n, passes, seed) => {
        const orders = seededOrders(n, passes, seed);
        expect(orders).toHaveLength(passes);
        for (const [pass, order] of orders.entries()) {
          expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
          if (pass % 2 === 1) expect(order).toEqual(orders[pass - 1]?.toReversed());
        }
      }),
    );
  });

  it("puts each attempt at each place about equally often", () => {
    const first = [0, 0, 0, 0];
    for (let seed = 0; seed < 4000; seed += 1) {
      const attempt = seededOrders(4, 1, seed)[0]?.[0] ?? 0;
      first[attempt] = (first[attempt] ?? 0) + 1;
    }
    for (const count of first) expect(Math.abs(count - 1000)).toBeLessThan(120);
  });

  it("lets positionBias find a slope exactly", () => {
    fc.assert(
      fc.property(fc.double({ min: -1, max: 1, noNaN: true }), fc.integer(), (slope, seed) => {
        const worth = [0.2, 0.5, 0.9, 0.4];
        const passes = seededOrders(4, 4, seed).map((order) => ({
          order,
          scores: worth.map((value, attempt) => value + (slope * order.indexOf(attempt)) / 3),
        }));
        expect(positionBias(passes)).toBeCloseTo(slope, 8);
      }),
    );
  });
});

describe("readAnswer", () => {
  const ids = ["aaaaaaaa", "bbbbbbbb", "cccccccc"];
  const entry = (id: string, score: number) => ({ id, explanation: "e", score });

  it("gives the same scores for any permutation", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray(ids, { minLength: 3 }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 3, maxLength: 3 }),
        (order, values) => {
          const entries = order.map((id) => entry(id, values[ids.indexOf(id)] ?? 0));
          const read = readAnswer(JSON.stringify({ scores: entries }), ids);
          expect(read.ok && ids.map((id) => read.scores.get(id)?.score)).toEqual(
            // JSON has no negative zero.
            values.map((value) => value + 0),
          );
        },
      ),
    );
  });

  it("makes no score of garbage", () => {
    const anyEntry = fc.record(
      {
        id: fc.oneof(fc.constantFrom(...ids), fc.string()),
        explanation: fc.oneof(fc.string(), fc.constant(null)),
        score: fc.oneof(fc.double(), fc.string(), fc.constant(null), fc.integer()),
      },
      { requiredKeys: [] },
    );
    const anything = fc.oneof(
      fc.json(),
      fc.string(),
      fc.array(anyEntry, { maxLength: 5 }).map((scores) => JSON.stringify({ scores })),
    );
    fc.assert(
      fc.property(anything, (text) => {
        const read = readAnswer(text, ids);
        if (!read.ok) return;
        // What is accepted says so itself, entry for entry.
        const { scores } = JSON.parse(text) as { scores: { id: string; score: number }[] };
        expect(scores.map(({ id }) => id).toSorted()).toEqual(ids);
        for (const { id, score } of scores) {
          expect(score >= 0 && score <= 1).toBe(true);
          expect(read.scores.get(id)?.score).toBe(score);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses a valid answer cut at any place, or with a text beside it", () => {
    const valid = JSON.stringify({ scores: ids.map((id) => entry(id, 0.5)) });
    expect(readAnswer(valid, ids).ok).toBe(true);
    for (let end = 0; end < valid.length; end += 1) {
      expect(readAnswer(valid.slice(0, end), ids).ok).toBe(false);
    }
    for (const text of [`x${valid}`, `${valid}x`, `${valid}${valid}`, `[${valid}]`]) {
      expect(readAnswer(text, ids).ok).toBe(false);
    }
  });
});
