import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { makeAdapter, startJoinableServer } from "../../testing/joinable-server.ts";
import type { JoinableServer } from "../../testing/joinable-server.ts";
import { startS3Store, storeKeys, type S3Store } from "../../testing/s3-store.ts";
import { sampleOne } from "../../testing/sampling.ts";
import { startSidecarEngine, tokenOf, type SidecarEngine } from "../../testing/sidecar-engine.ts";
import { bucketPlace } from "../bucket/bucket-place.ts";
import { startSidecar, type RunningSidecar } from "./sidecar.ts";

// A server, its bucket and its sidecars as they are; the store checks signatures by itself, the engines are small servers.
const soon = { timeout: 30_000, interval: 20 };
let folder: string;
let store: S3Store;
let server: JoinableServer;
let engines: SidecarEngine[];
let sidecars: RunningSidecar[];
let said: string[];
const log = pino({ level: "debug" }, { write: (line) => void said.push(line) });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-bucket-"));
  mkdirSync(join(folder, "server"));
  [engines, sidecars, said] = [[], [], []];
  store = await startS3Store();
  server = await startServer();
});
afterEach(async () => {
  await Promise.all(sidecars.map((one) => one.stop(AbortSignal.abort())));
  await server.close();
  for (const engine of engines) engine.close();
  await store.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  // What opens the bucket is told to nobody.
  expect(said.join("")).not.toContain(storeKeys.secret);
  expect(said.join("")).not.toMatch(/X-Amz-Signature/i);
});

/** Nothing is late, however busy the machine is, but where the test gives a deadline. */
function startServer({
  keptMs,
  deadlineMs = 30_000,
}: { keptMs?: number; deadlineMs?: number } = {}) {
  const bucket = bucketPlace({ bucket: "s3://weights/a", endpoint: store.url }, store.env);
  return startJoinableServer({
    ...{ dataDir: join(folder, "server"), deadlineMs, bucket, log },
    ...(keptMs !== undefined && { keptMs }),
  });
}

async function joinHere(name: string): Promise<void> {
  const engine = await startSidecarEngine();
  engines.push(engine);
  const sidecar = await startSidecar({
    ...{ server: server.url, name, token: await server.token(), log },
    ...{ engine: { url: engine.url, key: null }, dataDir: join(folder, name) },
    ...{ listen: { host: "127.0.0.1", port: 0 }, cacheBytes: 1e9, drainMs: 0, ephemeral: false },
    signal: new AbortController().signal,
  });
  sidecars.push(sidecar);
  await vi.waitFor(async () => {
    expect((await server.engines()).find((one) => one.name === name)?.state).toBe("serving");
  }, soon);
}

const adapter = (policy: string) => makeAdapter(join(folder, "checkpoints"), policy);
const keyOf = ({ sha256 }: { sha256: string }) => `weights/a/adapters/${sha256}.safetensors`;
const answers = async ({ policy, weights }: ReturnType<typeof adapter>) => {
  const { ids } = await sampleOne(server.pool, { model: policy, prompt: [1], maxTokens: 3 });
  expect(ids).toEqual(Array(3).fill(tokenOf(weights)));
};
const gets = () => store.calls.filter((one) => one.startsWith("GET a/adapters/"));
const warnings = () =>
  said
    .map((line) => JSON.parse(line) as { level: number; msg: string })
    .filter(({ level, msg }) => level >= 40 && msg.includes("bucket"));

it("engines get each adapter from the bucket, into which it is put once", async () => {
  await joinHere("a");
  await joinHere("b");
  const [one, two] = [adapter("m@1"), adapter("m@2")];
  await server.pool.load(one);
  await server.pool.load(two);
  await answers(one);
  await answers(two);
  expect(store.objects.get(keyOf(one))).toEqual(Buffer.from(one.weights));
  const puts = store.calls.filter((call) => call.startsWith("PUT a/adapters/"));
  expect(puts).toHaveLength(2);
  expect(gets()).toHaveLength(4);
  expect(server.bucket?.status()).toMatchObject({
    ...{ state: "ready", place: "s3://weights/a", objects: 2, uploads: 2, fallbacks: 0 },
  });
  // What looks whether the bucket can be used leaves nothing there.
  expect(store.objects.size).toBe(2);
  expect(warnings()).toEqual([]);
  // A later start finds it there.
  await server.close();
  server = await startServer();
  sidecars.splice(0);
  await joinHere("c");
  await server.pool.load(one);
  expect(server.bucket?.status()).toMatchObject({ objects: 1, uploads: 0 });
});

it.each([
  ["other bytes than it should have", "damaged"],
  ["nothing", "missing"],
] as const)(
  "where the bucket has %s, the server sends the adapter, and puts it there anew",
  async (_, why) => {
    await joinHere("a");
    const one = adapter("m@1");
    await server.pool.load(one);
    await server.pool.unload("m@1");
    const damaged = Buffer.from(one.weights);
    damaged[damaged.length - 3]! ^= 1;
    if (why === "damaged") store.objects.set(keyOf(one), damaged);
    else store.objects.delete(keyOf(one));
    await joinHere("b");
    await server.pool.load(one);
    await answers(one);
    await vi.waitFor(() => {
      expect(store.objects.get(keyOf(one))).toEqual(Buffer.from(one.weights));
    }, soon);
    expect(server.bucket?.status().fallbacks).toBe(1);
    expect(warnings().map(({ msg }) => msg)).toEqual([
      expect.stringMatching(`from the server, not from its bucket \\(${why}\\)`),
      expect.stringMatching(`engine b did not get an adapter from the bucket .*\\(${why}\\)`),
    ]);
  },
);

it("a bucket that hangs holds one publication up, for its deadline, and says so", async () => {
  const deadlineMs = 6_000;
  await server.close();
  server = await startServer({ deadlineMs });
  await joinHere("a");
  store.fault = "hangs";
  const took: number[] = [];
  const policies = [adapter("m@1"), adapter("m@2"), adapter("m@3")];
  for (const one of policies.slice(0, 2)) {
    const began = performance.now();
    await server.pool.load(one);
    took.push(performance.now() - began);
    await answers(one);
  }
  expect(took[0]).toBeGreaterThan(deadlineMs / 2 - 100);
  expect(took[1]).toBeLessThan(deadlineMs / 2 - 100);
  expect(server.bucket?.status()).toMatchObject({ state: "unreachable" });
  expect(warnings()[0]?.msg).toMatch(/no use now: .* Engines get adapters from this server/);
  // It comes back by itself: the next upload shows it.
  store.fault = null;
  await server.pool.load(policies[2]!);
  await vi.waitFor(() => expect(server.bucket?.status().state).toBe("ready"), soon);
  expect(warnings().at(-1)?.msg).toMatch(/is back/);
});

it("what is live no more is removed from the bucket, also after a start anew, and nothing else is", async () => {
  await server.close();
  server = await startServer({ keptMs: 300 });
  await joinHere("a");
  store.objects.set("weights/a/adapters/of-others", Buffer.from("theirs"));
  const [one, two] = [adapter("m@1"), adapter("m@2")];
  await server.pool.load(one);
  await server.pool.load(two);
  await delay(700);
  expect(store.objects.size).toBe(3);
  await server.pool.unload("m@1");
  await vi.waitFor(() => expect(store.objects.has(keyOf(one))).toBe(false), soon);
  const record = () => readFileSync(join(folder, "server", "bucket.json"), "utf8");
  await vi.waitFor(() => expect(record()).not.toContain(one.sha256), soon);
  expect(record()).toContain(two.sha256);
  expect(store.objects.has(keyOf(two))).toBe(true);
  await server.close();
  // After this start nothing is live.
  server = await startServer({ keptMs: 300 });
  await vi.waitFor(() => expect(store.objects.has(keyOf(two))).toBe(false), soon);
  expect([...store.objects.keys()]).toEqual(["weights/a/adapters/of-others"]);
});

it("a bucket whose rights are wrong ends the start, and one that is away does not", async () => {
  store.fault = { status: 403, code: "SignatureDoesNotMatch" };
  await expect(server.bucket?.check()).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringContaining("AWS_SECRET_ACCESS_KEY"),
  });
  store.fault = { status: 503, code: "SlowDown" };
  await server.bucket?.check();
  expect(server.bucket?.status()).toMatchObject({
    state: "unreachable",
    reason: expect.stringContaining("503 SlowDown"),
  });
});
