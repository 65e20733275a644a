import { afterEach, beforeEach, expect, it } from "vitest";
import { adapterAt } from "../testing/adapters.ts";
import { silent } from "../testing/fixtures.ts";
import { startListedEngine, type ListedEngine } from "../testing/listed-engine.ts";
import { createEnginePool, type EnginePool } from "./pool.ts";

let a: ListedEngine;
let b: ListedEngine;
let pool: EnginePool;
beforeEach(async () => {
  [a, b] = await Promise.all([startListedEngine("a"), startListedEngine("b")]);
  await makePool();
});
afterEach(async () => {
  await Promise.all([a.close(), b.close()]);
});

/** Where no list hangs, none is late, however busy the machine is. */
async function makePool(listsMs = 60_000): Promise<void> {
  pool = createEnginePool({
    replicas: [a, b].map(({ name, engine }) => ({ name, engine, requireUp: () => undefined })),
    // As the policies service begins it.
    async restore() {
      await pool.takeLost();
      await pool.unloadStale(() => false);
    },
    base: () => ({ name: "base", dtype: "float32" }),
    ...{ listsMs, log: silent },
  });
  await Promise.all([pool.admit("a"), pool.admit("b")]);
  await pool.load(adapterAt("m@1"));
}

it("what no engine serves any more is told once, and is live no more", async () => {
  await pool.load(adapterAt("m@2"));
  a.adapters.delete("m@1");
  expect(await pool.takeLost()).toEqual([]);
  b.adapters.delete("m@1");
  expect(await pool.takeLost()).toEqual(["m@1"]);
  expect(await pool.takeLost()).toEqual([]);
  expect(await pool.missing("a")).toEqual([]);
});

it("what is not live goes where it is known to be over", async () => {
  a.adapters.set("gone@1", "/gone/1");
  b.adapters.set("theirs@1", "/theirs/1");
  await pool.unloadStale((policy) => policy !== "theirs@1");
  expect([...a.adapters.keys()]).toEqual(["m@1"]);
  expect([...b.adapters.keys()]).toEqual(["theirs@1", "m@1"].toSorted());
});

it("an engine whose list does not come is not waited for: of it nothing is lost, and others are cleared", async () => {
  await makePool(1_000);
  a.hangs = true;
  b.adapters.clear();
  b.adapters.set("gone@1", "/gone/1");
  expect(await pool.takeLost()).toEqual([]);
  await pool.unloadStale((policy) => policy === "gone@1");
  expect([...b.adapters.keys()]).toEqual([]);
});

it("nor does one whose list does not come keep another from coming back", async () => {
  await makePool(1_000);
  a.hangs = true;
  pool.fence("b");
  b.restart();
  await pool.admit("b");
  expect([...b.adapters.keys()]).toEqual(["m@1"]);
  expect(pool.lease("m@1").replica).toBeDefined();
});
