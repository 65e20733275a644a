import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { describe, expect, it as base, vi } from "vitest";
import type { Trainer } from "../../ports/trainer.ts";
import { supervise, type Supervised } from "../../supervise/supervisor.ts";
import { adapterAt, testProbe } from "../../testing/adapters.ts";
import { startListedEngine, type ListedEngine } from "../../testing/listed-engine.ts";
import { sampleOne } from "../../testing/sampling.ts";
import { createEnginePool, type EnginePool } from "../pool.ts";
import { createEngineSleep, type EngineSleep } from "./sleep.ts";
import { formatSleep } from "./sleep-figures.ts";

// The engine is an HTTP server that speaks vLLM's routes, beside a process that the supervisor keeps alive.
const log = pino({ level: "silent" });
const soon = { timeout: 60_000, interval: 5 };
const checked = (policy: string) => ({ ...adapterAt(policy), probe: testProbe });

interface Setup {
  vllm: ListedEngine;
  /** As traffic and policies see it. */
  engines: EnginePool;
  child: Supervised;
  sleep: EngineSleep;
  /** What is free of its card while it is awake, and while it sleeps. */
  card: { awake: number | null; asleep: number | null };
  /** A step, which trains until it is ended. */
  step(route?: "train" | "forward_backward"): {
    trains: Promise<unknown>;
    end: () => Promise<void>;
  };
  /** Stages that steps told of. */
  stages: string[];
}

const it = base.extend<{ waitMs: number; setup: Setup }>({
  waitMs: 60_000,
  setup: async ({ waitMs }, use) => {
    const vllm = await startListedEngine("vllm");
    const card: Setup["card"] = { awake: null, asleep: null };
    const sleep = createEngineSleep({
      ...{ name: "vllm", pool: () => pool, log, waitMs, freeMs: 200, pollMs: 5 },
      engine: () => ({ baseURL: (child.baseURL(), vllm.url), key: "" }),
      doubt: () => child.doubt(),
      freeBytes: async () => (vllm.asleep ? card.asleep : card.awake),
    });
    const child = supervise({
      name: "vLLM",
      unavailable: "engine_unavailable",
      command: process.execPath,
      args: [fileURLToPath(new URL("../../testing/supervised-child.mjs", import.meta.url))],
      ...{ log, pollMs: 10, backoffMs: 10 },
      beforeStart: (signal) => sleep.untilStepOver(signal),
      onReady: () => sleep.admit(vllm.url, "", () => pool.admit("vllm")),
      onLost: () => {
        sleep.lost();
        pool.fence("vllm");
      },
      onSpawn: () => vllm.restart(),
    });
    const replica = { name: "vllm", engine: vllm.engine, requireUp: () => child.baseURL() };
    const pool = createEnginePool({
      replicas: [{ ...replica, onFenced: () => child.doubt() }],
      // As the policies service does it: through the pool that waits for the engine to wake.
      restore: async () => {
        const isLive = pool.liveSet.current().adapters.some(({ policy }) => policy === "m@1");
        if (!isLive) await engines.load(checked("m@1"));
      },
      base: () => ({ name: "base", dtype: "float32" }),
      log,
    });
    const engines = sleep.guard(pool);
    const stages: string[] = [];
    const ends: (() => void)[] = [];
    const trainer = sleep.beside({
      train: () =>
        new Promise((resolve) => {
          ends.push(() => resolve({ metrics: {}, files: [] }));
        }),
    } as Partial<Trainer> as Trainer);
    await child.start();
    await use({
      ...{ vllm, engines, child, sleep, card, stages },
      step(route = "train") {
        const trains = trainer.train({
          ...{ operationId: "o", route, stepData: new Uint8Array() },
          ...{ onAccepted: () => undefined, signal: new AbortController().signal },
          onEvent: (event) => event.event === "stage" && stages.push(event.stage),
        });
        trains.catch(() => undefined);
        const end = async (): Promise<void> => {
          // It trains once vLLM sleeps.
          await vi.waitFor(() => expect(ends).not.toEqual([]), soon);
          ends.shift()?.();
        };
        return { trains, end };
      },
    });
    for (const end of ends) end();
    await child.stop();
    await vllm.close();
  },
});
const itBriefly = it.extend({ waitMs: 100 });

const say = (engines: EnginePool, signal?: AbortSignal) =>
  sampleOne(engines, { model: "m@1", prompt: [1], stream: false, ...(signal && { signal }) });
const untilState = (sleep: EngineSleep, state: string) =>
  vi.waitFor(() => expect(sleep.status().state).toBe(state), soon);

describe("vLLM beside a step", () => {
  it("sleeps while it trains; requests and publications wait, and the probe is answered before", async ({
    setup: { vllm, engines, sleep, step, stages },
  }) => {
    vllm.calls.length = 0;
    const { trains, end } = step();
    await untilState(sleep, "asleep");
    expect(stages).toEqual(["sleep"]);
    let answered = false;
    const answer = say(engines).then((one) => ((answered = true), one));
    const info = engines.info();
    const load = engines.load(checked("m@2"));
    await delay(50);
    expect([answered, vllm.calls]).toEqual([false, ["sleep"]]);
    expect(sleep.status()).toMatchObject({ waiting: 2, slept: 1 });
    expect(formatSleep(sleep.status())).toMatch(/hone_engine_asleep 1\n[^]*slept="yes"} 1/);
    await end();
    await trains;
    expect((await answer).text).toBe("vllm");
    expect(await info).toMatchObject({ base: "base" });
    await load;
    // The adapter was still there, and answered as it should.
    expect(vllm.calls).toEqual(["sleep", "wake_up", "load m@2"]);
    expect(sleep.status()).toMatchObject({ state: "awake", waiting: 0 });
    expect(sleep.status().asleepSeconds).toBeGreaterThan(0.04);
  });

  it("stays awake where a request or a rollout is under way, and for parts of a step", async ({
    setup: { vllm, engines, sleep, step },
  }) => {
    vllm.calls.length = 0;
    const affinity = { rollout: "r1", group: null };
    await sampleOne(engines, { model: "m@1", prompt: [1], stream: false, affinity });
    const one = step();
    expect((await say(engines)).text).toBe("vllm");
    await one.end();
    await one.trains;
    engines.rolloutEnded("r1");
    let open: () => void = () => undefined;
    vllm.held = new Promise((resolve) => (open = resolve));
    const asking = say(engines);
    const two = step();
    open();
    await asking;
    await two.end();
    await two.trains;
    const three = step("forward_backward");
    await three.end();
    await three.trains;
    expect(vllm.calls).toEqual([]);
    expect(sleep.status()).toMatchObject({ state: "awake", slept: 0, stayedAwake: 2 });
  });

  it("loads anew what its memory lost, and what does not answer the probe any more", async ({
    setup: { vllm, engines, step, child },
  }) => {
    await engines.load(checked("m@2"));
    vllm.calls.length = 0;
    vllm.onWake = () => vllm.adapters.delete("m@2");
    const one = step();
    await vi.waitFor(() => expect(vllm.asleep).toBe(true), soon);
    await one.end();
    await one.trains;
    expect((await say(engines)).text).toBe("vllm");
    expect(vllm.calls).toEqual(["sleep", "wake_up", "load m@2"]);

    vllm.calls.length = 0;
    vllm.onWake = () => {
      vllm.answers = testProbe.base;
    };
    const { load } = vllm.engine;
    vllm.engine.load = (adapter) => {
      vllm.answers = testProbe.policy;
      return load(adapter);
    };
    const two = step();
    await vi.waitFor(() => expect(vllm.asleep).toBe(true), soon);
    await two.end();
    await two.trains;
    expect((await say(engines)).text).toBe("vllm");
    expect(vllm.calls.slice(0, 3)).toEqual(["sleep", "wake_up", "load m@1"]);
    expect(child.status().restarts).toBe(0);
  });

  it.for<[string, (setup: Setup) => void]>([
    ["cannot be woken", ({ vllm }) => (vllm.restless = "wake_up")],
    ["answers with other weights", ({ vllm }) => (vllm.answers = testProbe.base)],
    ["has not got its memory back in time", ({ card }) => (card.asleep = 10)],
  ])("is started anew where it %s, and only then takes requests", async ([, breaks], { setup }) => {
    const { vllm, engines, step, child, card } = setup;
    Object.assign(card, { awake: 0, asleep: 100 });
    const { trains, end } = step();
    await vi.waitFor(() => expect(vllm.calls.at(-1)).toBe("sleep"), soon);
    await delay(20);
    breaks(setup);
    await end();
    await trains;
    await vi.waitFor(() => expect(child.status().restarts).toBeGreaterThan(0), soon);
    vllm.restless = null;
    vllm.answers = testProbe.policy;
    await vi.waitFor(async () => expect((await say(engines)).text).toBe("vllm"), soon);
    expect([...vllm.adapters.keys()]).toEqual(["m@1"]);
  });

  it("goes on without a sleep where that fails", async ({
    setup: { vllm, engines, sleep, step },
  }) => {
    vllm.restless = "sleep";
    const { trains, end } = step();
    await vi.waitFor(() => expect(vllm.calls).toContain("sleep"), soon);
    expect((await say(engines)).text).toBe("vllm");
    expect(sleep.status()).toMatchObject({ state: "awake", slept: 0 });
    expect(vllm.calls.slice(-2)).toEqual(["sleep", "wake_up"]);
    await end();
    await trains;
  });

  it("that dies in its sleep is started once the step is over; until then requests are refused", async ({
    setup: { vllm, engines, sleep, step, child },
  }) => {
    const { trains, end } = step();
    await untilState(sleep, "asleep");
    const waiting = say(engines);
    waiting.catch(() => undefined);
    await child.kill();
    await expect(waiting).rejects.toMatchObject({ code: "engine_unavailable", status: 503 });
    await delay(100);
    expect(child.status()).toMatchObject({ state: "restarting", pid: null });
    await end();
    await trains;
    await vi.waitFor(async () => expect((await say(engines)).text).toBe("vllm"), soon);
    expect(vllm.calls.slice(-2)).toEqual(["sleep", "load m@1"]);
  });

  itBriefly("is waited for so long and no longer", async ({ setup: { engines, sleep, step } }) => {
    const { trains, end } = step();
    await untilState(sleep, "asleep");
    await expect(say(engines)).rejects.toMatchObject({
      ...{ code: "engine_busy", status: 429, retryAfterMs: 5_000 },
      message: expect.stringMatching(/sleeps while a step trains.*waited for 0\.1 s.*--sleep/),
    });
    const gone = new AbortController();
    const asking = say(engines, gone.signal);
    gone.abort();
    await expect(asking).rejects.toMatchObject({ name: "AbortError" });
    expect(sleep.status()).toMatchObject({ state: "asleep", waiting: 0 });
    await end();
    await trains;
    await untilState(sleep, "awake");
    expect((await say(engines)).text).toBe("vllm");
  });
});
