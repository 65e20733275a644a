import { pino } from "pino";
import { describe, expect, it as base, vi } from "vitest";
import type { ProbeAnswer } from "../ports/live-set.ts";
import { watchRemoteEngine, type RemoteEngine } from "../supervise/remote-engine.ts";
import { adapterAt, testProbe } from "../testing/adapters.ts";
import { sampleOne } from "../testing/sampling.ts";
import { startListedEngine, type ListedEngine } from "../testing/listed-engine.ts";
import { formatPoolMetrics } from "./engine-metrics.ts";
import { createEnginePool, type EnginePool } from "./pool.ts";

const log = pino({ level: "silent" });
const soon = { timeout: 60_000, interval: 5 };
const checked = (policy: string) => ({ ...adapterAt(policy), probe: testProbe });

interface Engines {
  a: ListedEngine;
  b: ListedEngine;
  pool: EnginePool;
  /** Those of both engines, which bring back what was fenced. They may be stopped to look at what is before. */
  watchers: RemoteEngine[];
}

const it = base.extend<{ deadlineMs: number; engines: Engines }>({
  // No engine is late, however busy the machine is.
  deadlineMs: 60_000,
  engines: async ({ deadlineMs }, use) => {
    const [a, b] = await Promise.all([startListedEngine("a"), startListedEngine("b")]);
    const watched = [a, b].map(({ name, engine }) => {
      const watcher = watchRemoteEngine({
        url: `http://${name}`,
        missing: () => pool.missing(name),
        onReady: () => pool.admit(name),
        onLost: () => pool.fence(name),
        ...{ log, pollMs: 10 },
      });
      const replica = { name, engine, requireUp: () => watcher.baseURL() };
      return { watcher, replica: { ...replica, onFenced: () => watcher.doubt() } };
    });
    const pool = createEnginePool({
      replicas: watched.map(({ replica }) => replica),
      restore: () => Promise.resolve(),
      base: () => ({ name: "base", dtype: "float32" }),
      ...{ deadlineMs, log },
    });
    const watchers = watched.map(({ watcher }) => watcher);
    await Promise.all(watchers.map((watcher) => watcher.start()));
    await pool.load(checked("m@1"));
    await use({ a, b, pool, watchers });
    await Promise.all(watchers.map((watcher) => watcher.stop()));
    await Promise.all([a.close(), b.close()]);
  },
});

const itWithin = it.extend({ deadlineMs: 500 });

/** Which engines take requests for a policy. */
function able(pool: EnginePool, policy: string): string[] {
  const held = [pool.lease(policy), pool.lease(policy)];
  for (const { release } of held) release();
  return [...new Set(held.map(({ replica }) => replica))].toSorted();
}
const stop = ({ watchers }: Engines) => Promise.all(watchers.map((watcher) => watcher.stop()));
const reasonOf = (pool: EnginePool, name: string) =>
  pool.status().find((one) => one.name === name)?.reason;
function gate(): { held: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  return { held: new Promise((resolve) => (open = resolve)), open: () => open() };
}

describe("a publication", () => {
  itWithin(
    "goes on without an engine that is late, which gets it before it takes traffic again",
    async ({ engines, deadlineMs }) => {
      const { a, b, pool } = engines;
      const { held, open } = gate();
      b.held = held;
      const began = performance.now();
      await pool.load(checked("m@2"));
      expect(performance.now() - began).toBeGreaterThan(deadlineMs - 10);
      expect(able(pool, "m@2")).toEqual(["a"]);
      expect(able(pool, "m@1")).toEqual(["a"]);
      expect(pool.liveSet.current()).toMatchObject({
        generation: 2,
        adapters: [{ policy: "m@1" }, { policy: "m@2" }],
      });
      expect(reasonOf(pool, "b")).toMatch("not ready for m@2 after 0.5 s");
      const metrics = formatPoolMetrics(pool.status(), pool.liveSet.current());
      expect(metrics).toContain('hone_engine_serving{engine="b"} 0');
      expect(metrics).toContain('hone_engine_fenced_total{engine="b"} 1');
      expect(metrics).toContain("hone_live_generation 2");
      open();
      await vi.waitFor(() => expect(able(pool, "m@2")).toEqual(["a", "b"]), soon);
      expect(b.adapters.get("m@2")).toBe(a.adapters.get("m@2"));
      expect(pool.status()[1]).toMatchObject({ state: "serving", reason: null, fences: 1 });
    },
  );

  itWithin(
    "takes no engine for late while none is ready",
    async ({ engines: { a, b, pool }, deadlineMs }) => {
      const { held, open } = gate();
      a.held = b.held = held;
      const load = pool.load(checked("m@2"));
      await new Promise((resolve) => setTimeout(resolve, 2 * deadlineMs));
      open();
      await load;
      await vi.waitFor(() => expect(able(pool, "m@2")).toEqual(["a", "b"]), soon);
      expect(pool.status().map(({ fences }) => fences)).toEqual([0, 0]);
    },
  );

  it("and the admission of another do not wait for one that comes and hangs", async ({
    engines,
    deadlineMs,
  }) => {
    const { a, b, pool } = engines;
    await stop(engines);
    pool.fence("b");
    b.restart();
    const { held, open } = gate();
    b.held = held;
    const admission = pool.admit("b");
    await vi.waitFor(() => expect(pool.status()[1]?.state).toBe("loading"), soon);
    const began = performance.now();
    await pool.load(checked("m@2"));
    pool.fence("a");
    await pool.admit("a");
    expect(performance.now() - began).toBeLessThan(deadlineMs);
    expect(able(pool, "m@2")).toEqual(["a"]);
    open();
    await admission;
    expect(able(pool, "m@2")).toEqual(["a", "b"]);
    expect([...b.adapters.keys()].toSorted()).toEqual([...a.adapters.keys()].toSorted());
    expect(pool.status().map(({ fences }) => fences)).toEqual([0, 0]);
  });

  it("and what unloads do not wait for one that hangs over what it gets, which lets go of it then", async ({
    engines,
  }) => {
    const { b, pool } = engines;
    await stop(engines);
    await pool.load(checked("m@2"));
    pool.fence("b");
    b.restart();
    b.calls.length = 0;
    const { held, open } = gate();
    b.held = held;
    const admission = pool.admit("b");
    await vi.waitFor(() => expect(b.calls).toEqual(["load m@1"]), soon);
    await pool.unload("m@1");
    await pool.unload("m@2");
    expect(b.calls).toEqual(["load m@1"]);
    await pool.load(checked("m@2"));
    open();
    await admission;
    await vi.waitFor(() => expect([...b.adapters.keys()]).toEqual(["m@2"]), soon);
    expect(able(pool, "m@2")).toEqual(["a", "b"]);
    expect(b.calls).not.toContain("unload m@2");
  });

  itWithin(
    "waits no longer than the deadline for one that comes to serve while it runs",
    async ({ engines, deadlineMs }) => {
      const { a, b, pool } = engines;
      await stop(engines);
      pool.fence("b");
      const [first, second] = [gate(), gate()];
      a.held = first.held;
      const load = pool.load(checked("m@2"));
      await vi.waitFor(() => expect(a.calls.at(-1)).toBe("load m@2"), soon);
      await pool.admit("b");
      b.held = second.held;
      first.open();
      const began = performance.now();
      await Promise.race([load, new Promise((resolve) => setTimeout(resolve, 8 * deadlineMs))]);
      expect(performance.now() - began).toBeLessThan(6 * deadlineMs);
      expect(able(pool, "m@2")).toEqual(["a"]);
      expect(pool.status()[1]).toMatchObject({ state: "away", fences: 1 });
      second.open();
    },
  );

  it("is for engines that answer: one that begins to answer with no token is passed over and fenced", async ({
    engines: { a, b, pool },
  }) => {
    b.answers = null;
    const asked = Array.from({ length: 6 }, () =>
      sampleOne(pool, { model: "m@1", prompt: [1], stream: false }),
    );
    // Also those that went to b: nothing was sampled yet.
    expect((await Promise.all(asked)).map(({ text }) => text)).toEqual(Array(6).fill("a"));
    expect(pool.status()[1]).toMatchObject({
      fences: 1,
      state: expect.not.stringMatching("serving"),
    });
    // It lists what it should all the same. Its probe shows that it is not well.
    await vi.waitFor(
      () => expect(b.calls.filter((call) => call === "load m@1")).toHaveLength(3),
      soon,
    );
    expect(able(pool, "m@1")).toEqual(["a"]);
    expect(reasonOf(pool, "b")).toMatch("no token");
    b.answers = testProbe.policy;
    await vi.waitFor(() => expect(able(pool, "m@1")).toEqual(["a", "b"]), soon);
    expect(a.calls).toEqual(["load m@1"]);
  });

  it.for<[string, ProbeAnswer | null, RegExp]>([
    [
      "other logprobs",
      { prompt: [-1, -2.1], next: -0.5 },
      /differ by 0.05, .* serves other weights/,
    ],
    ["another next token", { prompt: [-1, -2], next: -0.6 }, /differ by 0.1, /],
    ["the base's logprobs", testProbe.base, /those of the base without the adapter/],
    ["no token", null, /with no token/],
  ])("keeps an engine from traffic that answers the probe with %s", async (row, { engines }) => {
    const [, answers, reason] = row;
    const { b, pool, watchers } = engines;
    b.answers = answers;
    await pool.load(checked("m@2"));
    expect(able(pool, "m@2")).toEqual(["a"]);
    expect(reasonOf(pool, "b")).toMatch(reason);
    // It is tried again, and believed no sooner than it answers as it should.
    await vi.waitFor(() => expect(b.calls.length).toBeGreaterThan(5), soon);
    expect(able(pool, "m@2")).toEqual(["a"]);
    expect(watchers[1]?.status().state).toBe("unreachable");
    b.answers = testProbe.policy;
    await vi.waitFor(() => expect(able(pool, "m@2")).toEqual(["a", "b"]), soon);
  });

  it("fails where none gives the trainer's logprobs: all stay, none keeps it, and each has its reason", async ({
    engines: { a, b, pool },
  }) => {
    a.answers = null;
    b.refuses = 500;
    await expect(pool.load(checked("m@2"))).rejects.toMatchObject({
      code: "engine_error",
      message: expect.stringMatching(
        /^No engine can serve m@2\. a: It answered .* no token\. b: The engine could not load "m@2"/,
      ),
    });
    expect(able(pool, "m@1")).toEqual(["a", "b"]);
    expect([...a.adapters.keys()]).toEqual(["m@1"]);
    expect(pool.liveSet.current()).toMatchObject({ generation: 1 });
  });

  it("goes on without an engine that dies while it gets ready, and replays to its successor", async ({
    engines,
  }) => {
    const { b, pool } = engines;
    await stop(engines);
    const { held, open } = gate();
    b.held = held;
    const load = pool.load(checked("m@2"));
    await vi.waitFor(() => expect(b.calls.at(-1)).toBe("load m@2"), soon);
    b.down = true;
    open();
    await load;
    expect(able(pool, "m@2")).toEqual(["a"]);
    b.restart();
    b.calls.length = 0;
    b.answers = testProbe.base;
    await expect(pool.admit("b")).rejects.toMatchObject({ code: "bad_adapter" });
    expect(able(pool, "m@1")).toEqual(["a"]);
    b.answers = testProbe.policy;
    await pool.admit("b");
    expect(able(pool, "m@2")).toEqual(["a", "b"]);
    expect([...b.adapters.keys()].toSorted()).toEqual(["m@1", "m@2"]);
  });

  itWithin(
    "leaves nothing in an engine that was so late that nobody wants the policy any more",
    async ({ engines }) => {
      const { a, b, pool } = engines;
      await stop(engines);
      const { held, open } = gate();
      b.held = held;
      await pool.load(checked("m@2"));
      await pool.unload("m@2");
      open();
      await vi.waitFor(() => expect(b.calls.at(-1)).toBe("unload m@2"), soon);
      await pool.admit("b");
      expect([...b.adapters.keys()]).toEqual(["m@1"]);
      expect([...a.adapters.keys()]).toEqual(["m@1"]);
    },
  );

  it("lets go later of what an engine could not be asked to let go of", async ({ engines }) => {
    const { b, pool } = engines;
    await stop(engines);
    const { load } = b.engine;
    b.engine.load = async (adapter) => {
      await load(adapter);
      b.down = true;
    };
    await pool.load(checked("m@2"));
    await pool.unload("m@2");
    expect(b.adapters.has("m@2")).toBe(true);
    b.engine.load = load;
    b.down = false;
    await pool.admit("b");
    expect([...b.adapters.keys()]).toEqual(["m@1"]);
  });

  it("of a policy without a probe asks the list alone", async ({ engines: { b, pool } }) => {
    b.answers = null;
    await pool.load(adapterAt("m@2"));
    expect(able(pool, "m@2")).toEqual(["a", "b"]);
  });
});
