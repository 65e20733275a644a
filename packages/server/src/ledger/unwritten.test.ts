import { once } from "node:events";
import { join } from "node:path";
import { pino } from "pino";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  adapterList,
  completionOf,
  fileTrainer,
  onDatabase,
  openTestState,
  silent,
  temporaryFolder,
} from "../testing/fixtures.ts";
import { openStore, type Store } from "../store/store.ts";
import { createLedger } from "./ledger.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let store: Store;
beforeEach(async () => {
  folder = await temporaryFolder();
  store = await openStore(folder.path);
});
afterEach(async () => {
  await store.close();
  await folder.remove();
});

const onDisk = (sql: string, dataDir = folder.path) => onDatabase(dataDir, sql);
const refuse = (when: string, dataDir?: string) =>
  onDisk(
    `CREATE TRIGGER refuse BEFORE INSERT ON completions WHEN ${when}
       BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END`,
    dataDir,
  );
const allow = (dataDir?: string) => onDisk("DROP TRIGGER refuse", dataDir);

const a = completionOf("r", { id: "a", delivered: false });
const b = completionOf("r", { id: "b", parentId: "a", seq: 1, delivered: false });
const c = completionOf("r", { id: "c", parentId: "b", seq: 2, delivered: false });
const onceAgain = () => createLedger(store, silent).list("r");

test("an answer that the agent received stays received when its own row was refused", async () => {
  await refuse("NEW.id = 'a'");
  const ledger = createLedger(store, silent);
  // Both are under way when the first of them fails; the second then changes no row, and succeeds.
  await ledger.append([a]);
  await ledger.markDelivered(["a"]);
  await store.flush();
  // These come after the failure.
  await ledger.append([b]);
  await ledger.markDelivered(["b"]);
  await expect(ledger.settle(["r"])).rejects.toMatchObject({ code: "internal_error" });
  await allow();
  await ledger.settle(["r"]);
  expect(await onceAgain()).toEqual([
    { ...a, delivered: true },
    { ...b, delivered: true },
  ]);
});

test("what went through behind a refused row is written with it, in its order", async () => {
  await refuse("NEW.id = 'a'");
  const ledger = createLedger(store, silent);
  // The child is in the queue already, and its own row is not refused.
  await ledger.append([a]);
  await ledger.append([b]);
  await store.flush();
  await ledger.append([c]);
  await allow();
  await ledger.settle(["r"]);
  expect(await onceAgain()).toEqual([a, b, c]);
  // It is as any other rollout now.
  await ledger.append([completionOf("r", { id: "d" })]);
  await ledger.markDelivered(["c"]);
  await store.flush();
  expect((await onceAgain()).map(({ id, seq, delivered }) => [id, seq, delivered])).toEqual([
    ["a", 0, false],
    ["b", 1, false],
    ["c", 2, true],
    ["d", 3, true],
  ]);
});

test("what comes while a rollout is written again is on disk when `settle` says so", async () => {
  await refuse("NEW.id = 'a'");
  const ledger = createLedger(store, silent);
  await ledger.append([a]);
  await store.flush();
  await allow();
  const settled = ledger.settle(["r"]);
  const other = ledger.settle(["r"]);
  await store.flush();
  await ledger.append([b]);
  await ledger.markDelivered(["a"]);
  await Promise.all([settled, other]);
  await store.flush();
  expect(await onceAgain()).toEqual([{ ...a, delivered: true }, b]);
});

test("`settle` without names writes whatever is left", async () => {
  await refuse("1");
  const ledger = createLedger(store, silent);
  await ledger.append([a]);
  await ledger.append([completionOf("other", { id: "o" })]);
  await store.flush();
  await allow();
  // One that cannot be written keeps no other from the disk.
  await refuse("NEW.rollout_id = 'r'");
  await expect(ledger.settle()).rejects.toMatchObject({ code: "internal_error" });
  expect(await createLedger(store, silent).list("other")).toHaveLength(1);
  await allow();
  await ledger.settle();
  expect(await onceAgain()).toEqual([a]);
});

test("a row whose parent was lost does not train, is said loudly, and is in nobody's way", async () => {
  const before = createLedger(store, silent);
  await before.append([a]);
  await before.append([b]);
  await before.append([c]);
  await before.append([completionOf("r", { id: "d" })]);
  await store.flush();
  await onDisk("DELETE FROM completions WHERE id = 'a'");

  const lines = new PassThrough();
  const logged = once(lines, "data");
  const ledger = createLedger(store, pino({}, lines));
  // The continuation of what continues nothing is as useless as that.
  expect((await ledger.list("r")).map(({ id, seq }) => [id, seq])).toEqual([["d", 3]]);
  const line = JSON.parse(String((await logged)[0])) as object;
  expect(line).toMatchObject({ level: 50, rollout: "r", completions: ["b", "c"] });
  await ledger.append([completionOf("r", { id: "e", parentId: "d" })]);
  await ledger.settle(["r"]);
  expect((await onceAgain()).map(({ id, seq }) => [id, seq])).toEqual([
    ["d", 3],
    ["e", 4],
  ]);
  expect(store.get("SELECT count(*) AS n FROM completions")).toMatchObject({ n: 4 });
});

test("a rollout whose first row was lost goes on with a number of its own", async () => {
  const before = createLedger(store, silent);
  await before.append([a]);
  await before.append([completionOf("r", { id: "root" })]);
  await store.flush();
  await onDisk("DELETE FROM completions WHERE id = 'a'");
  const ledger = createLedger(store, silent);
  await ledger.append([completionOf("r", { id: "next" })]);
  await ledger.settle(["r"]);
  expect((await onceAgain()).map(({ id, seq }) => [id, seq])).toEqual([
    ["root", 1],
    ["next", 2],
  ]);
});

test("an answer received after its rollout was dropped from memory can be refused, and is not lost", async () => {
  const ledger = createLedger(store, silent);
  await ledger.append([a]);
  await ledger.retain(() => false);
  await onDisk(
    `CREATE TRIGGER refuse BEFORE UPDATE ON completions
       BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END`,
  );
  await ledger.markDelivered(["a"]);
  await store.flush();
  await allow();
  await ledger.settle(["r"]);
  expect(await onceAgain()).toEqual([{ ...a, delivered: true }]);
});

test("the server's end writes what was refused before", async () => {
  const path = join(folder.path, "server");
  const engine = adapterList();
  let server = await openTestState(path, { engine: () => engine, trainer: fileTrainer() });
  try {
    await server.call("PUT", "/v1/models/m", {});
    const { json } = await server.call("POST", "/v1/rollouts", { model: "m" });
    await refuse("1", path);
    await server.state.ledger.append([completionOf(json.id, { id: "kept" })]);
    await server.call("GET", "/v1/models/m/rollouts");
    await allow(path);
    server = await server.reopen();
    expect((await server.state.ledger.list(json.id)).map(({ id }) => id)).toEqual(["kept"]);
  } finally {
    await server.state.close();
  }
});
