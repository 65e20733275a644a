import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { group } from "../testing/run-log.ts";
import { openTotals } from "./totals.ts";

it("adds up over the starts of a run, what was saved of each", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-totals-"));
  try {
    let now = 0;
    const take = (ms: number) => async () => void (now += ms);
    const open = () => openTotals(join(folder, "totals.json"), () => now);
    const first = await open();
    await first.time("playing", take(1000));
    first.addPlayed(group([1, 0]).trajectories);
    first.addUsd(0.25);
    first.addEvaluation(4, { seconds: 2, usd: 0.1 });
    for (const seconds of [1, 2, 3, 4]) first.addStep({ seconds, usd: seconds / 10 });
    await first.save();
    // It is killed in the middle of this.
    await first.time("playing", take(5000));

    const second = await open();
    await second.time("playing", take(2000));
    await second.time("training", take(500));
    second.addPlayed(group([1]).trajectories);
    await second.save();
    const totals = {
      starts: 2,
      seconds: 3.5,
      stages: { playing: 3, training: 0.5 },
      turns: 3,
      // The group's answers have 10, 20 and 10 tokens.
      ...{ promptTokens: 9, completionTokens: 40, usd: 0.25 },
      evaluated: { rollouts: 4, seconds: 2, usd: 0.1 },
      newestSteps: [2, 3, 4].map((seconds) => ({ seconds, usd: seconds / 10 })),
    };
    expect(second.soFar()).toEqual(totals);
    expect((await open()).soFar()).toEqual({ ...totals, starts: 3 });
  } finally {
    await rm(folder, { recursive: true });
  }
});

it("counts the time of work that fails too, and the server's stages within the training", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-totals-"));
  try {
    let now = 0;
    const totals = await openTotals(join(folder, "totals.json"), () => now);
    const failing = async () => {
      now += 500;
      throw new Error("no");
    };
    await expect(totals.time("playing", failing)).rejects.toThrow("no");
    for (const seconds of [2, 3]) {
      totals.onEvent({ type: "stage", stage: "publish", seconds, seq: 1, at: 0 });
    }
    expect(totals.soFar().stages).toEqual({ playing: 0.5, "training: publish": 5 });
  } finally {
    await rm(folder, { recursive: true });
  }
});

it("takes nothing for a price that is none", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-totals-"));
  try {
    const totals = await openTotals(join(folder, "totals.json"));
    for (const usd of [Number.NaN, -1, Infinity]) {
      expect(() => totals.addUsd(usd)).toThrow(/is a number of dollars, 0 or more/);
    }
    const [one] = group([1]).trajectories;
    const negative = { ...one!, metrics: { cost_usd: -2 } };
    expect(() => totals.addPlayed([negative])).toThrow(/cost_usd of a rollout's metrics/);
    expect(totals.soFar().usd).toBe(0);
  } finally {
    await rm(folder, { recursive: true });
  }
});
