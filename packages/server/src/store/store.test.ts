import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import fc from "fast-check";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "../testing/fixtures.ts";
import { canonicalSha256 } from "./canonical.ts";
import { lockDataDir } from "./lock.ts";
import { openStore } from "./store.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

const insert = "INSERT INTO operation_events (operation_id, seq, data) VALUES (?, ?, ?)";
const count = "SELECT count(*) AS n FROM operation_events";

test("a write is there after a reopening, and the schema is made once", async () => {
  const first = await openStore(folder.path);
  await first.write([{ sql: insert, args: ["op", 1, "{}"] }]);
  await first.close();
  const second = await openStore(folder.path);
  expect(second.get(count)).toMatchObject({ n: 1 });
  await second.close();
});

test("of writes that share a transaction only the one at fault fails, and it fails whole", async () => {
  const store = await openStore(folder.path);
  const results = await Promise.allSettled([
    store.write([{ sql: insert, args: ["op", 1, "{}"] }]),
    store.write([
      { sql: insert, args: ["op", 2, "{}"] },
      { sql: insert, args: ["op", 1, "{}"] },
    ]),
    store.write([{ sql: insert, args: ["op", 3, "{}"] }]),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(store.all("SELECT seq FROM operation_events ORDER BY seq")).toMatchObject([
    { seq: 1 },
    { seq: 3 },
  ]);
  await store.close();
});

test("the main thread goes on while a commit cannot", async () => {
  const store = await openStore(folder.path);
  // Another connection of this thread has the database: a commit waits until this thread lets go of it.
  const holder = new Database(join(folder.path, "hone.db"));
  holder.exec("BEGIN IMMEDIATE");
  let written = false;
  const write = store.write([{ sql: insert, args: ["op", 1, "{}"] }]).then(() => (written = true));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(written).toBe(false);
  expect(store.get(count)).toMatchObject({ n: 0 });
  holder.exec("ROLLBACK");
  holder.close();
  await write;
  expect(store.get(count)).toMatchObject({ n: 1 });
  await store.close();
});

test("a write after close says that the server is shutting down", async () => {
  const store = await openStore(folder.path);
  await store.close();
  await expect(store.write([])).rejects.toMatchObject({ code: "shutting_down" });
});

test("one server per data directory; a lock ends with its process, however that dies", async () => {
  const libsql = createRequire(import.meta.url).resolve("libsql");
  const child = spawn(process.execPath, [
    "-e",
    `const D = require(${JSON.stringify(libsql)}); const d = new D(${JSON.stringify(join(folder.path, "lock.db"))});
     d.exec("BEGIN EXCLUSIVE"); console.log("held"); setInterval(() => d, 1000);`,
  ]);
  await once(child.stdout, "data");
  expect(() => lockDataDir(folder.path)).toThrow(/Another Hone server/);
  child.kill("SIGKILL");
  await once(child, "exit");
  const lock = lockDataDir(folder.path);
  expect(() => lockDataDir(folder.path)).toThrow(`pid ${process.pid}`);
  lock.release();
  lockDataDir(folder.path).release();
});

test("the canonical hash does not depend on the order of keys, and on nothing less", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const reversed = Object.fromEntries(Object.entries(value).reverse());
      expect(canonicalSha256(reversed)).toBe(canonicalSha256(value));
      expect(canonicalSha256({ ...value, "\u0000": 1 })).not.toBe(
        canonicalSha256({ ...value, "\u0000": 2 }),
      );
    }),
  );
});
