import { fileURLToPath } from "node:url";
import { HoneError } from "@hone/core";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { watchRemoteEngine, type RemoteEngine } from "../supervise/remote-engine.ts";
import { supervise, type Supervised } from "../supervise/supervisor.ts";
import { adapterAt } from "../testing/adapters.ts";
import { startListedEngine, type ListedEngine } from "../testing/listed-engine.ts";
import { sampleOne } from "../testing/sampling.ts";
import { createEnginePool, type EnginePool } from "./pool.ts";

const log = pino({ level: "silent" });
const base = () => ({ name: "base", dtype: "float32" as const });
/** A limit for what hangs. */
const soon = { timeout: 60_000, interval: 5 };
let a: ListedEngine;
let b: ListedEngine;
let watchers: RemoteEngine[];
let pool: EnginePool;
/** Runs in each admission. */
let restore: () => Promise<void>;
/** Live policies whose files are damaged. */
let damaged: Set<string>;
const verify = async ({ policy }: { policy: string }): Promise<void> => {
  if (damaged.has(policy)) throw new HoneError("not what was written", { code: "bad_adapter" });
};
beforeEach(async () => {
  [a, b] = await Promise.all([startListedEngine("a"), startListedEngine("b")]);
  restore = () => Promise.resolve();
  damaged = new Set();
  watchers = [];
  const replicas = [a, b].map(({ name, engine }) => {
    const watcher = watchRemoteEngine({
      url: `http://${name}`,
      missing: () => pool.missing(name),
      onReady: () => pool.admit(name),
      onLost: () => pool.fence(name),
      log,
      pollMs: 10,
    });
    watchers.push(watcher);
    return {
      ...{ name, engine, requireUp: () => watcher.baseURL() },
      onFenced: () => watcher.doubt(),
    };
  });
  pool = createEnginePool({ replicas, restore: () => restore(), base, verify, log });
});
afterEach(async () => {
  await stopWatching();
  await Promise.all([a.close(), b.close()]);
});

const stopWatching = () => Promise.all(watchers.map((watcher) => watcher.stop()));
const start = () => Promise.all(watchers.map((watcher) => watcher.start()));
/** Which engine answers. */
const asked = async (model: string) => (await sampleOne(pool, { model, prompt: [1] })).text;
function leased(policy: string): string {
  const { replica, release } = pool.lease(policy);
  release();
  return replica;
}
/** Where each of so many leases goes that are held at the same time. */
function leases(policy: string, count: number): string[] {
  const held = Array.from({ length: count }, () => pool.lease(policy));
  for (const { release } of held) release();
  return held.map(({ replica }) => replica);
}
function gate(): { held: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  return { held: new Promise((resolve) => (open = resolve)), open: () => open() };
}

describe("leases", () => {
  it("go to the engine with the fewest, and back when they are released", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    expect(leases("m@1", 4)).toEqual(["a", "b", "a", "b"]);
    const first = pool.lease("m@1");
    expect(leases("m@1", 3)).toEqual(["b", "a", "b"]);
    first.release();
    first.release();
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
    expect(await asked("m@1")).toBe("a");
  });

  it("are held while the engine samples, and no longer", async () => {
    await start();
    const { held, open } = gate();
    a.held = held;
    const slow = asked("base");
    await vi.waitFor(() => expect(leased("base")).toBe("b"), soon);
    expect(await asked("base")).toBe("b");
    open();
    expect(await slow).toBe("a");
    expect(leased("base")).toBe("a");
  });

  it("are refused while no engine takes traffic, and the reason is the engine's own", async () => {
    await expect(asked("base")).rejects.toMatchObject({
      code: "engine_unavailable",
      message: expect.stringContaining("does not answer"),
    });
    await expect(pool.info()).rejects.toMatchObject({ code: "engine_unavailable" });
    await expect(pool.load(adapterAt("m@1"))).rejects.toMatchObject({ status: 503 });
    await start();
    expect(await pool.info()).toEqual({ base: "base", maxModelLen: 512 });
  });
});

describe("publication", () => {
  it("waits until every engine that takes traffic has the adapter", async () => {
    await start();
    const { held, open } = gate();
    b.held = held;
    let published = false;
    const load = pool.load(adapterAt("m@1")).then(() => (published = true));
    await vi.waitFor(() => expect(a.adapters.get("m@1")).toBe("/policies/1"), soon);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(published).toBe(false);
    open();
    await load;
    expect(b.adapters.get("m@1")).toBe("/policies/1");
    await pool.unload("m@1");
    expect([a.adapters.size, b.adapters.size]).toEqual([0, 0]);
  });

  it("fences an engine that fails, which then gets no lease until it serves all that is live", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    b.refuses = 500;
    await pool.load(adapterAt("m@2"));
    // Of the older policy neither: it is the engine that is not trusted.
    expect(leases("m@2", 3)).toEqual(["a", "a", "a"]);
    expect(leases("m@1", 2)).toEqual(["a", "a"]);
    await pool.load(adapterAt("m@3"));
    b.refuses = null;
    await vi.waitFor(() => expect(leases("m@3", 2)).toEqual(["a", "b"]), soon);
    expect([...b.adapters.keys()].toSorted()).toEqual(["m@1", "m@2", "m@3"]);
    expect(a.calls).toEqual(["load m@1", "load m@2", "load m@3"]);
  });

  it("fails where no engine takes the adapter, and all stay as they were", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    a.refuses = b.refuses = 400;
    await expect(pool.load(adapterAt("m@2"))).rejects.toMatchObject({ code: "bad_adapter" });
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
    await expect(asked("m@2")).rejects.toMatchObject({ code: "policy_not_found" });
  });

  it("replaces weights of another server under the same name, on the engine that has them", async () => {
    await start();
    b.adapters.set("m@1", "/elsewhere/1");
    await pool.load(adapterAt("m@1"));
    expect(a.calls).toEqual(["load m@1"]);
    expect(b.calls).toEqual(["load m@1", "unload m@1", "load m@1"]);
    expect(b.adapters.get("m@1")).toBe("/policies/1");
  });
});

describe("an engine that comes back", () => {
  it("is brought up to date before it takes traffic", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    b.down = true;
    await vi.waitFor(() => expect(leases("m@1", 2)).toEqual(["a", "a"]), soon);
    await pool.load(adapterAt("m@2"));
    await pool.unload("m@1");
    const { held, open } = gate();
    b.held = held;
    b.restart();
    await vi.waitFor(() => expect(b.calls.at(-1)).toBe("load m@2"), soon);
    expect(leases("m@2", 2)).toEqual(["a", "a"]);
    // Published while it is getting the rest: it gets this as well.
    const load = pool.load(adapterAt("m@3"));
    open();
    await load;
    await vi.waitFor(() => expect(leases("m@3", 2)).toEqual(["a", "b"]), soon);
    expect([...b.adapters.keys()].toSorted()).toEqual(["m@2", "m@3"]);
  });

  it("as the same process lets go of what went meanwhile", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await pool.load(adapterAt("m@2"));
    b.down = true;
    await vi.waitFor(() => expect(leases("m@1", 2)).toEqual(["a", "a"]), soon);
    await pool.unload("m@1");
    b.down = false;
    await vi.waitFor(() => expect(leases("m@2", 2)).toEqual(["a", "b"]), soon);
    expect([...b.adapters.keys()]).toEqual(["m@2"]);
    expect(b.calls).toEqual(["load m@1", "load m@2", "unload m@1"]);
  });

  it("keeps what is published while it comes, though it is not live yet", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await stopWatching();
    pool.fence("b");
    const [coming, loading] = [gate(), gate()];
    let restoring = false;
    restore = () => ((restoring = true), coming.held);
    const admission = pool.admit("b");
    await vi.waitFor(() => expect(restoring).toBe(true), soon);
    a.held = loading.held;
    const load = pool.load(adapterAt("m@2"));
    await vi.waitFor(() => expect(b.adapters.has("m@2")).toBe(true), soon);
    coming.open();
    await admission;
    loading.open();
    await load;
    expect(b.calls).toEqual(["load m@1", "load m@2"]);
    expect(leases("m@2", 2)).toEqual(["a", "b"]);
  });

  it("gets what the others were loading when it came, before that is live", async () => {
    await start();
    await stopWatching();
    pool.fence("b");
    const { held, open } = gate();
    a.held = held;
    const load = pool.load(adapterAt("m@1"));
    await vi.waitFor(() => expect(a.calls).toEqual(["load m@1"]), soon);
    await pool.admit("b");
    expect(b.calls).toEqual([]);
    open();
    await load;
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
  });

  it("lets go of a policy before it loads it again", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await stopWatching();
    pool.fence("b");
    await pool.unload("m@1");
    const { held, open } = gate();
    b.held = held;
    const admission = pool.admit("b");
    await vi.waitFor(() => expect(b.calls.at(-1)).toBe("unload m@1"), soon);
    const load = pool.load(adapterAt("m@1"));
    await vi.waitFor(() => expect(a.calls.at(-1)).toBe("load m@1"), soon);
    open();
    await Promise.all([admission, load]);
    expect(b.calls).toEqual(["load m@1", "unload m@1", "load m@1"]);
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
  });

  it("lets go of a policy whose publication failed while all were away", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await stopWatching();
    pool.fence("a");
    pool.fence("b");
    await expect(pool.load(adapterAt("m@1"))).rejects.toMatchObject({ status: 503 });
    await pool.admit("a");
    expect(a.adapters.size).toBe(0);
  });

  it("loads one policy that others have unloaded, and only that", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await pool.load(adapterAt("m@2"));
    b.calls.length = 0;
    b.adapters.delete("m@1");
    await vi.waitFor(() => expect(b.calls).toEqual(["load m@1"]), soon);
    await vi.waitFor(() => expect(leases("m@1", 2)).toEqual(["a", "b"]), soon);
  });

  it("does without a policy whose file is damaged by then, until it comes again", async () => {
    await start();
    await pool.load(adapterAt("m@1"));
    await pool.load(adapterAt("m@2"));
    damaged.add("m@1");
    b.restart();
    b.calls.length = 0;
    await vi.waitFor(() => expect(b.calls).toEqual(["load m@2"]), soon);
    await vi.waitFor(() => expect(leases("m@2", 2)).toEqual(["a", "b"]), soon);
    expect(await pool.missing("b")).toEqual([]);
    // Those that have it go on with it.
    expect(leases("m@1", 2)).toEqual(["a", "a"]);
    // It is live no more where no engine has it, and then it is for the policies service to say what becomes of it.
    await stopWatching();
    a.adapters.delete("m@1");
    expect(await pool.takeLost()).toEqual(["m@1"]);
    await pool.load(adapterAt("m@1"));
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
    damaged.clear();
    pool.fence("b");
    b.restart();
    await pool.admit("b");
    expect(b.calls.slice(-2).toSorted()).toEqual(["load m@1", "load m@2"]);
  });

  it("takes no traffic while what must be live cannot be restored", async () => {
    restore = () => Promise.reject(new HoneError("the disk is away", { code: "internal_error" }));
    await expect(pool.admit("a")).rejects.toThrow("the disk is away");
    expect(() => pool.lease("base")).toThrow(HoneError);
    // As the policies service does it: by loading through the pool.
    restore = () => pool.load(adapterAt("m@1"));
    await pool.admit("a");
    expect(leases("m@1", 2)).toEqual(["a", "a"]);
    expect(b.calls).toEqual([]);
  });
});

describe("an engine that the server runs itself", () => {
  let worker: Supervised;
  beforeEach(async () => {
    // The process says that it is well, and the list beside it stands for its adapters: those end with it.
    worker = supervise({
      name: "worker",
      unavailable: "worker_unavailable",
      command: process.execPath,
      args: [fileURLToPath(new URL("../testing/supervised-child.mjs", import.meta.url))],
      ...{ log, pollMs: 10, backoffMs: 10 },
      onReady: () => pool.admit("b"),
      onLost: () => pool.fence("b"),
      onSpawn: () => b.restart(),
    });
    pool = createEnginePool({
      replicas: [
        { ...{ name: "a", engine: a.engine }, requireUp: () => undefined },
        {
          ...{ name: "b", engine: b.engine },
          requireUp: () => worker.baseURL(),
          onFenced: () => worker.doubt(),
        },
      ],
      restore: () => Promise.resolve(),
      base,
      log,
    });
    await pool.admit("a");
    await worker.start();
    await pool.load(adapterAt("m@1"));
  });
  afterEach(() => worker.stop());

  it("serves again after a fence, without a new process", async () => {
    b.refuseNext = 500;
    await pool.load(adapterAt("m@2"));
    await vi.waitFor(() => expect(leases("m@2", 2)).toEqual(["a", "b"]), soon);
    expect(leases("m@1", 2)).toEqual(["a", "b"]);
    expect(b.calls).toEqual(["load m@1", "load m@2", "unload m@2", "load m@2"]);
    expect(worker.status()).toMatchObject({ state: "ready", restarts: 0 });
  });

  it("is started anew where it still does not take what is live, and gets all of it", async () => {
    b.refuses = 500;
    await pool.load(adapterAt("m@2"));
    expect(leases("m@1", 2)).toEqual(["a", "a"]);
    await vi.waitFor(() => expect(worker.status().restarts).toBeGreaterThan(0), soon);
    b.refuses = null;
    await vi.waitFor(() => expect(leases("m@2", 2)).toEqual(["a", "b"]), soon);
    expect([...b.adapters.keys()].toSorted()).toEqual(["m@1", "m@2"]);
    expect(worker.status().state).toBe("ready");
  });
});
