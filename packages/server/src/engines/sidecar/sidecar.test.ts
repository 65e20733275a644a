import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
  makeAdapter,
  startJoinableServer,
  type AdapterFaults,
  type JoinableServer,
} from "../../testing/joinable-server.ts";
import { silent } from "../../testing/fixtures.ts";
import { startCli } from "../../testing/run-cli.ts";
import { sampleOne } from "../../testing/sampling.ts";
import { startSidecarEngine, tokenOf, type SidecarEngine } from "../../testing/sidecar-engine.ts";
import type { SidecarOptions } from "./sidecar-options.ts";
import { startSidecar, type RunningSidecar } from "./sidecar.ts";

// The engines are small HTTP servers that speak the engine contract. Sidecars run in this process, but those that get
// signals: those are the real command.
const soon = { timeout: 60_000, interval: 20 };
let folder: string;
let server: JoinableServer;
let engines: SidecarEngine[];
let running: ReturnType<typeof startCli>[];
let here: RunningSidecar[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-sidecar-"));
  mkdirSync(join(folder, "server"));
  engines = [];
  running = [];
  here = [];
  // Nothing is late, however busy the machine is, but where the test gives a deadline.
  server = await startJoinableServer({ dataDir: join(folder, "server"), deadlineMs: 30_000 });
});
afterEach(async () => {
  for (const { child } of running) child.kill("SIGKILL");
  await Promise.all(running.map(({ ended }) => ended));
  await Promise.all(here.map((one) => one.stop(AbortSignal.abort())));
  await server.close();
  for (const engine of engines) engine.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

const adapter = (policy: string, faults?: AdapterFaults) =>
  makeAdapter(join(folder, "checkpoints"), policy, faults);

async function startEngine(): Promise<SidecarEngine> {
  const engine = await startSidecarEngine();
  engines.push(engine);
  return engine;
}

/** The command as a process of its own. */
function startProcess(name: string, engine: SidecarEngine, token?: string) {
  const started = startCli(
    [
      ...["engine", "--join", server.url, "--engine-url", engine.url, "--name", name],
      ...["--data-dir", join(folder, name), "--log-level", "info"],
    ],
    token === undefined ? {} : { HONE_JOIN_TOKEN: token },
  );
  running.push(started);
  return started;
}

async function joinByProcess(name: string) {
  const engine = await startEngine();
  const sidecar = startProcess(name, engine, await server.token());
  await untilState(name, "serving");
  return { engine, sidecar };
}

async function startHere(
  name: string,
  engine: SidecarEngine,
  options: Partial<SidecarOptions> = {},
): Promise<RunningSidecar> {
  const sidecar = await startSidecar({
    ...{ server: server.url, name, engine: { url: engine.url, key: null } },
    ...{ dataDir: join(folder, name), listen: { host: "127.0.0.1", port: 0 } },
    ...{ cacheBytes: 1e9, drainMs: 10_000, ephemeral: false },
    ...{ log: silent, signal: new AbortController().signal, ...options },
  });
  here.push(sidecar);
  return sidecar;
}

async function joinHere(name: string, options: Partial<SidecarOptions> = {}) {
  const engine = await startEngine();
  const sidecar = await startHere(name, engine, { token: await server.token(), ...options });
  await untilState(name, "serving");
  return { engine, sidecar };
}

async function untilState(name: string, state: string): Promise<void> {
  await vi.waitFor(async () => {
    expect((await server.engines()).find((one) => one.name === name)?.state).toBe(state);
  }, soon);
}

const infoOf = async (name: string) => (await server.engines()).find((one) => one.name === name);
const say = (model: string) => sampleOne(server.pool, { model, prompt: [1], maxTokens: 3 });

it("an engine joins, gets what is live, and answers with each policy's weights", async () => {
  const { engine } = await joinHere("a");
  const [one, two] = [adapter("m@1"), adapter("m@2")];
  await server.pool.load(one);
  await server.pool.load(two);
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(one.weights)));
  expect((await say("m@2")).ids).toEqual(Array(3).fill(tokenOf(two.weights)));
  const cached = join(folder, "a", "adapters");
  expect(
    readdirSync(cached)
      .map((name) => name.slice(0, 64))
      .toSorted(),
  ).toEqual([one.sha256, two.sha256].toSorted());
  expect(statSync(join(folder, "a", "engine.json")).mode & 0o777).toBe(0o600);
  expect([...engine.adapters.values()].map(({ root }) => root)).toEqual([
    expect.stringContaining(cached),
    expect.stringContaining(cached),
  ]);
  await server.pool.unload("m@1");
  expect(engine.calls).toEqual(["load m@1", "load m@2", "unload m@1"]);
  expect(await infoOf("a")).toMatchObject({ policies: ["m@2"], reason: null, joined: true });
});

it.each<[string, AdapterFaults, RegExp]>([
  ["a flipped bit", { flipped: true }, /SHA-256/],
  ["a cut file", { cut: true }, /bytes, not/],
  ["NaN", { nan: true }, /NaN/],
  ["another rank than it should", { rank: 4 }, /rank 4/],
])("an adapter with %s is refused before the engine has it", async (_, faults, reason) => {
  const { engine } = await joinHere("a");
  const good = adapter("m@1");
  await server.pool.load(good);
  await expect(server.pool.load(adapter("m@2", faults))).rejects.toMatchObject({
    code: "bad_adapter",
    message: expect.stringMatching(reason),
  });
  expect(engine.calls).toEqual(["load m@1"]);
  // All engines refuse it, so none is fenced, and what was live stays so.
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(good.weights)));
  expect(readdirSync(join(folder, "a", "adapters"))).toHaveLength(1);
});

it("an engine may differ from the trainer by what the server's operator allows, also in its sidecar", async () => {
  const far = { prompt: [-3], next: -3 };
  const near = { prompt: [-0.51], next: -0.51 };
  const probe = { dtype: "float32" as const, ids: [1, 2], policy: near, base: far };
  const one = { ...adapter("m@1"), probe };
  await joinHere("a");
  await expect(server.pool.load(one)).rejects.toMatchObject({
    code: "bad_adapter",
    message: expect.stringContaining("--probe-tolerance"),
  });
  await server.close();
  server = await startJoinableServer({
    ...{ dataDir: join(folder, "server"), probeTolerance: 0.05 },
    port: Number(new URL(server.url).port),
  });
  await untilState("a", "serving");
  await server.pool.load(one);
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(one.weights)));
});

it("an engine that cannot take an adapter is fenced with the reason, and the others go on", async () => {
  const { engine: a } = await joinHere("a", { maxLoraRank: 8 });
  const { engine: b } = await joinHere("b", { maxLoraRank: 16 });
  const large = { ...adapter("m@1", { rank: 16 }), rank: 16 };
  await server.pool.load(large);
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(large.weights)));
  expect([a.calls, b.calls]).toEqual([[], ["load m@1"]]);
  expect(await infoOf("a")).toMatchObject({
    state: expect.not.stringMatching("serving"),
    reason: expect.stringContaining("--max-lora-rank 16"),
  });
});

it("the server starts anew: the engine comes back by itself, and gets what is live", async () => {
  const { engine } = await joinHere("a");
  const one = adapter("m@1");
  await server.pool.load(one);
  await server.close();
  expect(engine.adapters.size).toBe(1);
  server = await startJoinableServer({
    ...{ dataDir: join(folder, "server"), live: [one] },
    port: Number(new URL(server.url).port),
  });
  await untilState("a", "serving");
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(one.weights)));
});

it("the sidecar starts anew without a token, and takes its adapters from its disk", async () => {
  const { engine, sidecar } = await joinByProcess("a");
  const one = adapter("m@1");
  await server.pool.load(one);
  sidecar.child.kill("SIGKILL");
  await sidecar.ended;
  engine.adapters.clear();
  // The server's files are gone, as if it could not send them again.
  rmSync(join(one.path, "adapter_model.safetensors"));
  await startHere("a", engine);
  await vi.waitFor(() => expect(engine.adapters.size).toBe(1), soon);
  await untilState("a", "serving");
  expect((await say("m@1")).ids).toEqual(Array(3).fill(tokenOf(one.weights)));
});

it("a sidecar that stands still in a publication is fenced within the deadline; later it catches up", async () => {
  await server.close();
  server = await startJoinableServer({ dataDir: join(folder, "server"), deadlineMs: 3_000 });
  const { sidecar } = await joinByProcess("a");
  await joinHere("b");
  await server.pool.load(adapter("m@1"));
  await untilState("a", "serving");
  sidecar.child.kill("SIGSTOP");
  const begun = performance.now();
  const two = adapter("m@2");
  await server.pool.load(two);
  expect(performance.now() - begun).toBeLessThan(15_000);
  expect((await infoOf("a"))?.state).not.toBe("serving");
  expect((await say("m@2")).ids).toEqual(Array(3).fill(tokenOf(two.weights)));
  sidecar.child.kill("SIGCONT");
  await untilState("a", "serving");
  expect((await infoOf("a"))?.policies).toEqual(["m@1", "m@2"]);
});

it("an engine joins and one leaves in mid-run: no request fails, none is mixed", async () => {
  const { engine: a, sidecar: first } = await joinByProcess("a");
  await joinHere("b");
  const models = [adapter("m@1"), adapter("n@1")];
  for (const one of models) await server.pool.load(one);
  const ended = new AbortController();
  let finished = 0;
  const stream = async (nth: number): Promise<void> => {
    const { policy, weights } = models[nth % 2]!;
    while (!ended.signal.aborted) {
      const ask = { model: policy, prompt: [nth], maxTokens: 40, stream: true };
      const { ids } = await sampleOne(server.pool, ask);
      expect(ids).toEqual(Array(40).fill(tokenOf(weights)));
      finished++;
    }
  };
  const streams = Promise.all(Array.from({ length: 8 }, (_, nth) => stream(nth)));
  streams.catch(() => undefined);
  const { engine: c } = await joinHere("c");
  await delay(300);
  first.child.kill("SIGTERM");
  expect(await first.ended).toMatchObject({ code: 0 });
  expect(a.aborted).toBe(0);
  await Promise.race([streams, vi.waitFor(() => expect(finished).toBeGreaterThan(16), soon)]);
  ended.abort();
  await streams;
  expect([...c.adapters.keys()].toSorted()).toEqual(["m@1", "n@1"]);
  expect((await infoOf("a"))?.state).not.toBe("serving");
});

it("the server reads the engine's metrics through its sidecar", async () => {
  await joinHere("a");
  await server.pool.readLoads();
  expect(server.pool.loads()).toMatchObject([{ name: "a", kvUse: 0.25 }]);
});

it("who goes away in the middle of a stream ends the stream in the engine", async () => {
  const { engine } = await joinHere("a");
  const gone = new AbortController();
  const asking = sampleOne(server.pool, {
    ...{ model: "base", prompt: [1], maxTokens: 10_000, stream: true, signal: gone.signal },
  });
  asking.catch(() => undefined);
  await vi.waitFor(() => expect(engine.begun).toBe(1), soon);
  gone.abort();
  await expect(asking).rejects.toMatchObject({ name: "AbortError" });
  await vi.waitFor(() => expect(engine.aborted).toBe(1), soon);
});

it("an engine that was removed is told so, and cannot come back", async () => {
  const { engine, sidecar } = await joinHere("a");
  expect((await server.call("DELETE", "/v1/engines/a")).status).toBe(200);
  await expect(sidecar.failed).rejects.toMatchObject({
    code: "invalid_api_key",
    message: expect.stringContaining("the engine was removed"),
  });
  expect(await server.engines()).toEqual([]);
  await sidecar.stop(AbortSignal.abort());
  here = [];
  await expect(startHere("a", engine)).rejects.toMatchObject({ code: "invalid_api_key" });
  // With a new token it can.
  await startHere("a", engine, { token: await server.token() });
  await untilState("a", "serving");
});

it("a machine that does not come back gives its key back", async () => {
  const { sidecar } = await joinHere("a", { ephemeral: true });
  await sidecar.stop();
  here = [];
  expect(await server.engines()).toEqual([]);
  expect(readdirSync(join(folder, "a"))).not.toContain("engine.json");
});

it.each<[string, number]>([
  ["was removed has no key to give back, and warns of nothing", 0],
  ["does not reach the server says that its key was not given back", 1],
])("a machine that does not come back and %s", async (_, count) => {
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => void lines.push(line) });
  const { sidecar } = await joinHere("a", { ephemeral: true, log });
  if (count === 0) await server.call("DELETE", "/v1/engines/a");
  else await server.close();
  if (count === 0) await expect(sidecar.failed).rejects.toMatchObject({ code: "invalid_api_key" });
  await sidecar.stop();
  here = [];
  expect(lines.filter((line) => line.includes("gone for good"))).toHaveLength(count);
  if (count === 0) expect(lines).toEqual([]);
  expect(readdirSync(join(folder, "a"))).not.toContain("engine.json");
});

it("an engine of another base, or without a token, does not join", async () => {
  const other = await startSidecarEngine("other");
  engines.push(other);
  const token = await server.token();
  await expect(startHere("a", other, { token })).rejects.toMatchObject({ code: "base_mismatch" });
  const process_ = startProcess("b", other);
  expect(await process_.ended).toMatchObject({
    code: 1,
    error: expect.stringContaining("needs a join token"),
  });
});

it.runIf(existsSync("/proc/self"))("says that its data directory cannot be made", async () => {
  await expect(
    startSidecar({
      ...{ server: server.url, token: await server.token(), base: join(folder, "base") },
      ...{ engine: { url: "http://127.0.0.1:9", key: null }, dataDir: "/proc/hone" },
      ...{ listen: { host: "127.0.0.1", port: 0 }, cacheBytes: 1e9, drainMs: 0, ephemeral: false },
      ...{ log: silent, signal: new AbortController().signal },
    }),
  ).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringMatching(/^The data directory \/proc\/hone cannot be made/),
  });
});

it("who gives up while vLLM starts waits for it no more, and leaves nothing behind", async () => {
  const python = join(folder, "python");
  const note = join(folder, "pid");
  writeFileSync(python, `#!/bin/sh\necho $$ > ${note}\nexec sleep 300\n`, { mode: 0o755 });
  const base = join(folder, "base");
  mkdirSync(base);
  const giveUp = new AbortController();
  const starting = startSidecar({
    ...{ server: server.url, token: await server.token(), base },
    ...{ engine: { python, device: "cpu", flags: [] }, dataDir: join(folder, "a") },
    ...{ listen: { host: "127.0.0.1", port: 0 }, cacheBytes: 1e9, drainMs: 0, ephemeral: false },
    ...{ log: silent, signal: giveUp.signal },
  });
  const ended = starting.catch((error: unknown) => error);
  // The shell makes the file before it writes into it.
  await vi.waitFor(() => expect(readFileSync(note, "utf8")).toMatch(/^\d+\n$/), soon);
  const pid = Number(readFileSync(note, "utf8"));
  giveUp.abort();
  expect(await ended).toMatchObject({ code: "aborted" });
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
}, 120_000);
