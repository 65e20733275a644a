import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { sampleOne, type Sampled } from "../../testing/sampling.ts";
import { startListedEngine, type ListedEngine } from "../../testing/listed-engine.ts";
import { createEnginePool, type EnginePool } from "../pool.ts";
import { createJoinedEngines, type JoinedEngines } from "./joined-engines.ts";

const soon = { timeout: 60_000, interval: 5 };
/** Of a stop that waits for nobody: whoever hangs would be waited for half a minute. @unit ms */
const atOnce = 15_000;
let dataDir: string;
let engine: ListedEngine;
let pool: EnginePool;
let joined: JoinedEngines;
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "hone-removal-"));
  engine = await startListedEngine("gpu");
  pool = createEnginePool({
    ...{ replicas: [], restore: () => Promise.resolve(), log: silent },
    base: () => ({ name: "base", dtype: "float32" }),
  });
  joined = createJoinedEngines({
    ...{ dataDir, pool: () => pool, closed: null, taken: [], log: silent },
    base: () => ({
      ...{ name: "base", dtype: "float32", quantize: null, fingerprint: null },
      ...{ maxModelLen: 512, rank: 8, slots: 6 },
    }),
  });
  joined.start();
});
afterEach(async () => {
  await joined.stop();
  await engine.close();
  rmSync(dataDir, { recursive: true });
});

/** An engine "gpu" that has just joined, and says that it is ready. */
async function come(boot: string, served?: () => Promise<Map<string, string>>): Promise<void> {
  const { token } = joined.registry.issue(60_000);
  joined.registry.redeem(token, boot.repeat(43), "gpu");
  joined.add("gpu");
  const one = joined.find("gpu");
  if (served) one.driver.served = served;
  one.heard();
  const base = { name: "base", fingerprint: null };
  const about = { boot, url: engine.url, key: "k".repeat(43), base };
  await one.announced({ ...about, maxModelLen: 512, maxRank: 8, maxSequences: null }, "127.0.0.1");
  one.reported({ boot, generation: one.driver.generation, ready: true, served: [], refused: [] });
}
const state = () => pool.status().map((one) => one.state);

it("one that was removed while it hung does not keep its successor of the same name from traffic", async () => {
  let fail: (error: Error) => void = () => undefined;
  let asked = false;
  const hung = new Promise<never>((_, reject) => (fail = reject));
  await come("a", () => ((asked = true), hung));
  await vi.waitFor(() => expect(asked).toBe(true), soon);
  joined.remove("gpu");
  await come("b");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
  fail(new Error("it did not answer"));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(state()).toEqual(["serving"]);
});

it("one that the pool lost by another way is admitted again", async () => {
  await come("a");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
  pool.fence("gpu");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
});

/** A request that is under way on the engine, and lets it answer. */
async function underWay(): Promise<{ answer: Promise<Sampled>; open: () => void }> {
  await come("a");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
  let open: () => void = () => undefined;
  engine.held = new Promise((resolve) => (open = resolve));
  const answer = sampleOne(pool, { model: "base", prompt: [1] });
  answer.catch(() => undefined);
  await vi.waitFor(() => expect(pool.loads()[0]?.inFlight).toBe(1), soon);
  await vi.waitFor(() => expect(engine.asked).toBe(1), soon);
  return { answer, open };
}

it("what runs on one that is removed may finish", async () => {
  const { answer, open } = await underWay();
  const { driver } = joined.find("gpu");
  joined.remove("gpu");
  expect(state()).toEqual([]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(driver.inFlight).toBe(1);
  open();
  expect(await answer).toMatchObject({ text: "gpu", finish: "stop" });
});

it("a server that stops does not wait for what runs on one that was removed", async () => {
  const { answer, open } = await underWay();
  joined.remove("gpu");
  await joined.stop();
  await expect(answer).rejects.toMatchObject({ code: "engine_error" });
  open();
});

it("a server that stops does not wait for an engine that hangs over what it gets", async () => {
  await come("a");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
  const { driver, reported } = joined.find("gpu");
  const adapter = makeAdapter(dataDir, "m@1");
  const load = pool.load(adapter);
  await vi.waitFor(() => expect(driver.wanted()).toHaveLength(1), soon);
  const { policy, sha256, asked } = driver.wanted()[0]!;
  const served = [{ policy, sha256, asked, answer: null }];
  reported({ boot: "a", generation: driver.generation, ready: true, served, refused: [] });
  await load;
  // Its list is without the policy, so it gets it again, and never says that it has it.
  await vi.waitFor(() => expect(driver.wanted()[0]?.asked).toBeGreaterThan(asked), soon);
  expect(state()).toEqual(["loading"]);
  const began = performance.now();
  await joined.stop();
  expect(performance.now() - began).toBeLessThan(atOnce);
});

it("nor for one whose list does not come", async () => {
  await come("a");
  await vi.waitFor(() => expect(state()).toEqual(["serving"]), soon);
  engine.hangs = true;
  const asked = engine.listed;
  await vi.waitFor(() => expect(engine.listed).toBeGreaterThan(asked), soon);
  const began = performance.now();
  await joined.stop();
  expect(performance.now() - began).toBeLessThan(atOnce);
});
