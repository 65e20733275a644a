import { chmodSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "../testing/fixtures.ts";
import { lockDataDir } from "./lock.ts";
import { openStore } from "./store.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

const modes = (path: string): string[] =>
  readdirSync(path)
    .filter((name) => /\.db/.test(name))
    .map((name) => `${name} ${(statSync(join(path, name)).mode & 0o777).toString(8)}`)
    .toSorted();

test("databases in a folder that others can read are for their owner only", async () => {
  const path = join(folder.path, "data");
  mkdirSync(path, { mode: 0o755 });
  chmodSync(path, 0o755);
  const lock = lockDataDir(path);
  const store = await openStore(path);
  await store.write([{ sql: "CREATE TABLE mine (a)", args: [] }]);
  expect(modes(path)).toEqual(
    expect.arrayContaining(["hone.db 600", "hone.db-shm 600", "hone.db-wal 600", "lock.db 600"]),
  );
  expect(modes(path).every((line) => line.endsWith(" 600"))).toBe(true);
  await store.close();
  lock.release();
});

test("those that an older Hone left open to others are closed", async () => {
  writeFileSync(join(folder.path, "hone.db"), "", { mode: 0o644 });
  chmodSync(join(folder.path, "hone.db"), 0o644);
  const store = await openStore(folder.path);
  expect(modes(folder.path)).toContain("hone.db 600");
  await store.close();
});
