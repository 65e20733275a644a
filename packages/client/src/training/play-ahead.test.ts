import type { ModelInfo, TrajectoryGroup } from "@hone/core";
import { pause } from "@hone/transport";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { group } from "../testing/run-log.ts";
import type { Batch } from "./batch.ts";
import { planBatches } from "./batches.ts";
import { playAhead, type PlayAheadOptions } from "./play-ahead.ts";

// Time passes a millisecond a turn, however long a turn takes: which side is faster is a matter of the times given.
let passing: { isOver: boolean; over: Promise<void> };
beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"],
  });
  const time = { isOver: false };
  const pass = async (): Promise<void> => {
    while (!time.isOver) await vi.advanceTimersByTimeAsync(1);
  };
  passing = Object.assign(time, { over: pass() });
});
afterEach(async () => {
  passing.isOver = true;
  await passing.over;
  vi.useRealTimers();
});
const delay = (ms: number, signal?: AbortSignal): Promise<void> => pause(ms, signal);

const scenarios = Array.from({ length: 12 }, (_, index) => index);

/** A model whose steps the test counts, the batches of a run, and what happened in which order. */
function begin({ steps = 4, playMs = 5 }: { steps?: number; playMs?: number } = {}) {
  const model = { learnt: 0, info: async () => ({ learnt: model.learnt }) as ModelInfo };
  const said: string[] = [];
  async function* batches() {
    yield* planBatches(scenarios, { groupsPerStep: 2, steps, shuffle: false }, null);
  }
  let playing = 0;
  let most = 0;
  const play = async (
    given: readonly number[],
    { batch, signal }: { batch: Batch<number>; signal: AbortSignal },
  ): Promise<TrajectoryGroup[]> => {
    const policy = `m@${model.learnt}`;
    said.push(`play ${batch.step}: ${given.join(" ")} of ${policy}`);
    playing += 1;
    most = Math.max(most, playing);
    try {
      await delay(playMs, signal);
    } finally {
      playing -= 1;
    }
    return given.map((scenario) => {
      const played = group([0, 1]);
      const trajectories = played.trajectories.map((one) => ({ ...one, policy }));
      return { ...played, scenario, trajectories };
    });
  };
  const run = (options: PlayAheadOptions = {}) => playAhead(model, batches(), play, options);
  return { model, said, run, now: () => ({ playing, most }) };
}

describe("playAhead", () => {
  it("is refused where the engine sleeps while a step trains, before anything is played", async () => {
    const { model, said, run } = begin();
    model.info = async () => ({ learnt: 0, engineSleeps: true }) as ModelInfo;
    const first = run()[Symbol.asyncIterator]().next();
    await expect(first).rejects.toMatchObject({
      code: "invalid_config",
      param: "overlap",
      message: expect.stringContaining("--sleep"),
    });
    expect(said).toEqual([]);
  });

  it("plays the next batch while the loop trains, one after another and in order", async () => {
    const { model, said, run, now } = begin();
    const ages: number[] = [];
    for await (const { batch, groups, overlap } of run()) {
      expect(groups.map(({ scenario }) => scenario)).toEqual(batch.scenarios);
      said.push(`train ${batch.step}`);
      await delay(30);
      model.learnt += 1;
      ages.push(overlap.staleness?.max ?? -1);
    }
    expect(said).toEqual([
      ...["play 0: 0 1 of m@0", "train 0", "play 1: 2 3 of m@0"],
      ...["train 1", "play 2: 4 5 of m@1", "train 2", "play 3: 6 7 of m@2", "train 3"],
    ]);
    expect(ages).toEqual([0, 1, 1, 1]);
    expect(now().most).toBe(1);
  });

  it("says which side waited for the other", async () => {
    for (const [playMs, trainMs] of [
      [80, 5],
      [5, 80],
    ] as const) {
      let [rollouts, training] = [0, 0];
      for await (const { batch, overlap } of begin({ playMs }).run()) {
        await delay(trainMs);
        if (batch.step === 0) continue;
        rollouts += overlap.waitedForRollouts;
        training += overlap.waitedForTraining;
      }
      expect(Math.max(rollouts, training)).toBeGreaterThan(0.2);
      expect(rollouts > training).toBe(playMs > trainMs);
    }
  });

  it.each([1, 2, 3])("is never more than %i batches ahead", async (ahead) => {
    const { model, said, run } = begin({ steps: 6, playMs: 1 });
    const ages: number[] = [];
    for await (const { batch, overlap } of run({ ahead })) {
      await delay(15);
      const played = said.filter((line) => line.startsWith("play")).length;
      expect(played).toBe(Math.min(6, batch.step + 1 + ahead));
      model.learnt += 1;
      ages.push(overlap.staleness?.max ?? -1);
    }
    expect(Math.max(...ages)).toBe(ahead);
  });

  it("plays the scenarios of rollouts again that got too old, before the batch is given", async () => {
    const { model, said, run } = begin({ steps: 3 });
    const counts: number[] = [];
    for await (const { batch, groups, overlap } of run({ maxStaleness: 1 })) {
      expect(groups.map(({ scenario }) => scenario)).toEqual(batch.scenarios);
      expect(overlap.staleness?.max).toBeLessThanOrEqual(1);
      counts.push(overlap.resampled);
      await delay(20);
      // Another program trains the model too.
      model.learnt += batch.step === 0 ? 3 : 1;
    }
    expect(counts).toEqual([0, 4, 0]);
    expect(said.filter((line) => line.startsWith("play 1"))).toEqual([
      "play 1: 2 3 of m@0",
      "play 1: 2 3 of m@3",
    ]);
  });

  it("gives up on a model that another program trains faster than a batch is played", async () => {
    const { model, run } = begin({ playMs: 1 });
    const hurried = setInterval(() => (model.learnt += 10), 1);
    await expect(run().next()).rejects.toMatchObject({ code: "step_mismatch" });
    clearInterval(hurried);
  });

  it("ends its rollouts with the loop, and tells the loop of those that fail", async () => {
    const { run, now } = begin({ playMs: 50 });
    for await (const { batch } of run()) {
      await delay(5);
      if (batch.step === 1) {
        expect(now().playing).toBe(1);
        break;
      }
    }
    expect(now().playing).toBe(0);

    const stop = new AbortController();
    const stopped = begin({ playMs: 50 });
    await expect(async () => {
      for await (const _ of stopped.run({ signal: stop.signal })) {
        setTimeout(() => stop.abort(new Error("stopped")), 5);
        await delay(20);
      }
    }).rejects.toMatchObject({ code: "aborted" });
    expect(stopped.now().playing).toBe(0);
  });

  it("refuses to play further ahead than rollouts may be old", async () => {
    const { run } = begin();
    await expect(run({ ahead: 2, maxStaleness: 1 }).next()).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "maxStaleness" },
    });
    await expect(run({ ahead: 0 }).next()).rejects.toMatchObject({ param: "ahead" });
    await expect(run({ aheads: 1 } as object).next()).rejects.toThrow(/aheads/);
  });
});
