import { HoneError } from "@hone/core";
import { pino, type Logger } from "pino";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Affinity } from "../ports/engine.ts";
import { simulateRouting } from "../testing/router-simulation.ts";
import { createTestEngine, type TestEngine } from "../testing/test-engine.ts";
import { sampleOne } from "../testing/sampling.ts";
import type { Route } from "./placement.ts";
import { formatEngineFigures } from "./router-figures.ts";
import { createEngineRouter, type EngineRouter } from "./router.ts";

const prompt = { model: "m@1", prompt: [1] };
let a: TestEngine;
let b: TestEngine;
let shut: { a: Route["shut"]; b: Route["shut"] };
let now: number;
let log: Logger;
let lines: string[];
let router: EngineRouter;
function makeRouter(maxSequences = 256, waitMs?: number): EngineRouter {
  return createEngineRouter({
    routes: () => [
      { name: "a", engine: a, shut: shut.a },
      { name: "b", engine: b, shut: shut.b },
    ],
    noneOpen: () => new HoneError("nobody is there", { code: "engine_unavailable" }),
    maxSequences: () => maxSequences,
    now: () => now,
    ...{ waitMs, log },
  });
}
beforeEach(() => {
  [a, b] = [createTestEngine("a"), createTestEngine("b")];
  shut = { a: null, b: null };
  now = 0;
  lines = [];
  log = pino({ level: "warn" }, { write: (line) => void lines.push(line) });
  router = makeRouter();
});

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const figures = (name: string) => router.figures().find((one) => one.name === name)!;
const ask = (affinity?: Affinity, signal?: AbortSignal) =>
  sampleOne(router, { ...prompt, affinity, ...(signal && { signal }) });
/** Which engine answers a turn of the rollout. */
async function turn(rollout: string, group: string | null = null): Promise<string> {
  const answer = ask({ rollout, group });
  // It may fail before it is waited for.
  answer.catch(() => undefined);
  await settled();
  for (const engine of [a, b]) engine.finish();
  return (await answer).text;
}

describe("1,000 rollouts of six turns over eight engines, one of them slow", () => {
  const run = { engines: 8, slow: 3, rollouts: 1000, turns: 6, concurrency: 256 };

  it("keeps turns with their prefix and engines evenly loaded, and moves nothing", async () => {
    const result = await simulateRouting(run);
    expect(result.withPrefix).toBeGreaterThan(0.95);
    expect(result.laterWithPrefix).toBe(1);
    expect(result.worstOverMean).toBeLessThan(1.5);
    expect(result).toMatchObject({ moved: 0, moves: {}, busy: 0 });
    // The slow one answers less, because its rollouts stay longer.
    expect(result.answered[0]).toBeLessThan(0.7 * Math.min(...result.answered.slice(1)));
    expect(result.answered.reduce((sum, count) => sum + count, 0)).toBe(6000);
  });

  it("moves the rollouts of an engine that is fenced or drained, each once, between turns", async () => {
    const events = [
      { atMs: 5_000, engine: 2, shut: "fenced" as const },
      { atMs: 9_000, engine: 2, shut: null },
      { atMs: 12_000, engine: 5, shut: "draining" as const },
    ];
    const result = await simulateRouting({ ...run, events });
    expect(result.withPrefix).toBeGreaterThan(0.95);
    expect(result.worstOverMean).toBeLessThan(1.5);
    expect(Object.keys(result.moves).toSorted()).toEqual(["draining", "fenced"]);
    // What was sampled elsewhere than the turn before is what was counted: nothing moved within a turn.
    expect(result.moved).toBe(result.movesCounted);
    expect(result.moved).toBeLessThan(2 * (256 / 8) * 1.5);
    expect(result.answered[2]).toBeGreaterThan(result.answered[5]!);
  });

  it("goes on where the engines hold fewer than there are, and waits in line", async () => {
    const result = await simulateRouting({ ...run, concurrency: 512, kvHolds: 24 });
    expect(result.laterWithPrefix).toBeGreaterThan(0.95);
    expect(result.answered.reduce((sum, count) => sum + count, 0)).toBe(6000);
  });
});

describe("a rollout", () => {
  it("stays where its first turn was, and its group joins it", async () => {
    expect(await turn("r1", "g")).toBe("a");
    expect(await turn("r2", "g")).toBe("a");
    expect(await turn("r3", "h")).toBe("b");
    expect(await turn("r2", "g")).toBe("a");
    expect(figures("a")).toMatchObject({ rollouts: 2, inFlight: 0 });
    router.rolloutEnded("r1");
    router.rolloutEnded("r2");
    router.rolloutEnded("r2");
    expect(figures("a").rollouts).toBe(0);
    // The prompt is still there.
    expect(await turn("r4", "g")).toBe("a");
  });

  it("goes where its group is no more once that has too much", async () => {
    const members = Array.from({ length: 40 }, (_, at) => `r${at}`);
    const engines = [];
    for (const member of members) engines.push(await turn(member, "g"));
    expect(engines.slice(0, 16)).toEqual(members.slice(0, 16).map(() => "a"));
    expect(figures("a").rollouts).toBeLessThanOrEqual(1.5 * 20);
    expect(figures("b").rollouts).toBeGreaterThan(10);
  });

  it("that was silent for long is placed anew", async () => {
    await turn("r1");
    now = 31 * 60_000;
    await router.tick();
    expect(figures("a").rollouts).toBe(0);
    expect(await turn("r1")).toBe("a");
  });

  it.each(["fenced", "draining", "lacks_policy"] as const)(
    "moves between turns when its engine is %s, and not back",
    async (why) => {
      await turn("r1", "g");
      const during = ask({ rollout: "r1", group: "g" });
      await settled();
      shut.a = why;
      router.changed();
      a.finish();
      expect((await during).text).toBe("a");
      expect(await turn("r1", "g")).toBe("b");
      shut.a = null;
      expect(await turn("r1", "g")).toBe("b");
      expect(figures("a")).toMatchObject({ rollouts: 0, moves: { [why]: 1 } });
      expect(figures("b")).toMatchObject({ rollouts: 1, moves: {} });
    },
  );

  it("leaves an engine whose KV memory is full and which gives keys and values up", async () => {
    await turn("r1");
    await turn("r2");
    await turn("r3");
    a.kv = { use: 0.95, preemptions: 1 };
    await router.tick();
    // Full alone is no reason: it may have room for this one.
    expect(await turn("r1")).toBe("a");
    a.kv.preemptions = 2;
    await router.tick();
    expect(await turn("r1")).toBe("b");
    // Not all at once: what is left may fit.
    expect(await turn("r3")).toBe("a");
    expect(figures("a").moves).toEqual({ kv_full: 1 });
  });

  it("has its turn again on another engine when its own dies in the middle of it", async () => {
    await turn("r1");
    a.fails = { code: "engine_error", after: 1 };
    await expect(turn("r1")).rejects.toMatchObject({ code: "engine_error" });
    expect(figures("a")).toMatchObject({ inFlight: 0, moves: {} });
    expect(await turn("r1")).toBe("b");
    expect(await turn("r1")).toBe("b");
    expect(figures("a").moves).toEqual({ failed: 1 });
  });

  it("does not notice an engine that is away before it has begun", async () => {
    await turn("r1");
    a.fails = { code: "engine_unavailable", after: 0 };
    expect(await turn("r1")).toBe("b");
    expect(await turn("r1")).toBe("b");
    // For a moment it gets no new ones either.
    expect(await turn("r2")).toBe("b");
    now = 3_000;
    expect(await turn("r3")).toBe("a");
  });

  it("hears why, where every engine is away", async () => {
    a.fails = b.fails = { code: "engine_unavailable", after: 0 };
    await expect(ask()).rejects.toMatchObject({ code: "engine_unavailable", message: "died" });
    expect([a.asked, b.asked]).toEqual([1, 1]);
    shut = { a: "fenced", b: "fenced" };
    await expect(ask()).rejects.toThrow("nobody is there");
  });
});

describe("an engine with as many requests as it may have", () => {
  const own = { rollout: "r0", group: "g" };
  const answers: Promise<unknown>[] = [];
  /** Fills `a` with turns of one group's rollouts, which do not move. */
  async function fill(count: number): Promise<void> {
    shut.b = "fenced";
    for (let at = 0; at < count; at++) answers.push(ask({ ...own, rollout: `r${at}` }));
    await settled();
    shut.b = null;
  }
  beforeEach(() => void answers.splice(0));

  it("lets others wait, first come, first served", async () => {
    router = makeRouter(8);
    await fill(10);
    expect(a.asked).toBe(8);
    expect(figures("a")).toMatchObject({ inFlight: 8, waiting: 2, bound: 8 });
    // What sticks to nothing goes where there is room.
    const other = ask();
    await settled();
    expect(b.asked).toBe(1);
    b.finish();
    await other;
    a.finish();
    await settled();
    expect(figures("a")).toMatchObject({ inFlight: 8, waiting: 1 });
    for (let at = 0; at < 10; at++) {
      a.finish();
      await settled();
    }
    await Promise.all(answers);
    expect(figures("a")).toMatchObject({ inFlight: 0, waiting: 0 });
  });

  it("refuses with 429 once too many wait, and says when to come again", async () => {
    router = makeRouter(8);
    await fill(8 + 64);
    await expect(ask({ ...own, rollout: "r0" })).rejects.toMatchObject({
      ...{ code: "engine_busy", status: 429 },
      retryAfterMs: expect.toSatisfy((ms: number) => ms >= 1_000 && ms <= 38_000),
      message: expect.stringContaining("fewer rollouts"),
    });
    expect(figures("a")).toMatchObject({ waiting: 64, busy: 1 });
    expect(formatEngineFigures(router.figures())).toContain(
      'hone_engine_busy_total{engine="a"} 1\n',
    );
    // The other one has room, and gets new rollouts.
    const fresh = ask({ rollout: "new", group: "g" });
    await settled();
    b.finish();
    expect(await fresh).toMatchObject({ text: "b" });
    shut.a = "fenced";
    router.changed();
    await settled();
    for (let at = 0; at < 80; at++) {
      a.finish();
      b.finish();
      await settled();
    }
    await Promise.all(answers);
  });

  it("refuses whoever waited for too long", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      router = makeRouter(8, 5_000);
      await fill(9);
      const refused = answers[8]!.catch((error: unknown) => error);
      await vi.advanceTimersByTimeAsync(5_000);
      expect(await refused).toMatchObject({
        code: "engine_busy",
        message: expect.stringContaining("waited 5 s"),
      });
      expect(figures("a")).toMatchObject({ inFlight: 8, waiting: 0 });
    } finally {
      vi.useRealTimers();
    }
  });

  it("forgets whoever left while waiting", async () => {
    router = makeRouter(8);
    await fill(8);
    const leaving = new AbortController();
    const left = ask(own, leaving.signal);
    await settled();
    expect(figures("a").waiting).toBe(1);
    leaving.abort(new Error("gone"));
    await expect(left).rejects.toThrow("gone");
    expect(figures("a")).toMatchObject({ inFlight: 8, waiting: 0 });
  });

  it("does not queue whoever had left before it came to it", async () => {
    router = makeRouter(1);
    shut.b = "fenced";
    const first = sampleOne(router, prompt);
    await vi.waitFor(() => expect(a.asked).toBe(1), { timeout: 30_000 });
    const signal = AbortSignal.abort(new Error("gone"));
    await expect(sampleOne(router, { ...prompt, signal })).rejects.toThrow("gone");
    expect(router.figures()[0]).toMatchObject({ waiting: 0, inFlight: 1, rollouts: 0 });
    a.finish();
    await first;
  });

  it("gives those that wait to another one when it is fenced", async () => {
    router = makeRouter(8);
    await fill(10);
    shut.a = "fenced";
    router.changed();
    await settled();
    expect(b.asked).toBe(2);
    expect(figures("a")).toMatchObject({ inFlight: 8, waiting: 0, moves: { fenced: 2 } });
  });

  it("gets fewer while its KV memory is short, and more again after that", async () => {
    router = makeRouter(20);
    await fill(20);
    a.kv = { use: 0.9, preemptions: 0 };
    await router.tick();
    expect(figures("a").bound).toBe(16);
    const waiting = ask(own);
    await settled();
    expect(figures("a")).toMatchObject({ inFlight: 20, waiting: 1 });
    a.kv = { use: 0.3, preemptions: 0 };
    for (let second = 0; second < 5; second++) await router.tick();
    await settled();
    expect(figures("a")).toMatchObject({ bound: 21, inFlight: 21, waiting: 0 });
    for (let at = 0; at < 21; at++) a.finish();
    await Promise.all([...answers, waiting]);
  });
});

it("an engine whose metrics cannot be read is warned of once, and goes on", async () => {
  a.kv = { use: 0.5, preemptions: 7 };
  await router.tick();
  expect(formatEngineFigures(router.figures())).toContain('hone_engine_kv_use{engine="a"} 0.5');
  a.kv = null;
  await router.tick();
  await router.tick();
  expect(lines).toEqual([expect.stringContaining("ECONNREFUSED")]);
  expect(figures("a")).toMatchObject({ kvUse: null, preemptions: null, traffic: "serving" });
  expect(await turn("r1")).toBe("a");
  expect(formatEngineFigures(router.figures())).not.toContain('hone_engine_kv_use{engine="a"}');
});
