import { HoneError } from "@hone/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLedger, type StoredLedger } from "../ledger/ledger.ts";
import { completionOf, silent, temporaryFolder } from "../testing/fixtures.ts";
import type { LivePolicies } from "../policies/live.ts";
import { createModels } from "../policies/models.ts";
import { openStore, type Store } from "../store/store.ts";
import { createRollouts, type Rollouts } from "./rollouts.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let store: Store;
let full = false;
/** Only the rows of the ledger find no room. */
let fullForCompletions = false;
let now = 0;
let rollouts: Rollouts;
let ledger: StoredLedger;
const held: string[] = [];
const live = {
  hold: (policy: string) => void held.push(policy),
  release: (policy: string) => void held.splice(held.indexOf(policy), 1),
} as unknown as LivePolicies;

function open(): Rollouts {
  const refusing: Store = {
    ...store,
    write: (statements) =>
      full || (fullForCompletions && statements.some(({ sql }) => sql.includes("completions")))
        ? Promise.reject(new HoneError("full", { code: "disk_full" }))
        : store.write(statements),
  };
  ledger = createLedger(refusing, silent);
  return createRollouts({
    store: refusing,
    ledger,
    models: createModels(store, () => now),
    live,
    clock: () => now,
    leaseMs: 1000,
    publicURL: () => "",
    texts: { text: () => Promise.resolve(""), stopIds: () => Promise.resolve([]) },
    log: silent,
  });
}

beforeEach(async () => {
  folder = await temporaryFolder();
  store = await openStore(folder.path);
  await createModels(store, () => 0).create(
    {
      ...{ name: "m", base: "b", quantize: null, lora: { r: 1, alpha: 1 } },
      ...{ seed: 0, chatTemplateKwargs: null },
    },
    "create-m",
  );
  full = false;
  fullForCompletions = false;
  now = 0;
  held.length = 0;
  rollouts = open();
});
afterEach(async () => {
  await store.close();
  await folder.remove();
});

async function pinned(): Promise<string> {
  const { id } = await rollouts.create("k", { model: "m" });
  rollouts.pin(rollouts.require("k", id), 0);
  await store.flush();
  return id;
}

const statusOnDisk = (id: string): unknown =>
  (store.get("SELECT status FROM rollouts WHERE id = ?", id) as { status: string }).status;

test("what expires while the disk is full lets go of its policy, and is written when there is room", async () => {
  const ids = [await pinned(), await pinned()];
  expect(held).toEqual(["m@0", "m@0"]);
  expect(rollouts.openSteps("m")).toEqual(new Set([0]));
  now = 2000;
  full = true;
  await rollouts.sweep();
  expect(ids.map((id) => rollouts.info("k", id).status)).toEqual(["expired", "expired"]);
  expect(held).toEqual([]);
  expect(rollouts.openSteps("m").size).toBe(0);
  expect(ids.map(statusOnDisk)).toEqual(["open", "open"]);
  full = false;
  await rollouts.sweep();
  expect(ids.map(statusOnDisk)).toEqual(["expired", "expired"]);
});

test("an end that a full disk refused is written without being asked for again", async () => {
  const id = await pinned();
  full = true;
  const end = rollouts.patch("k", id, { status: "finished", reward: 2 });
  await expect(end).rejects.toMatchObject({ code: "disk_full" });
  const named = await pinned().catch((error: unknown) => (error as HoneError).code);
  expect(named).toBe("disk_full");
  full = false;
  await rollouts.sweep();
  expect(statusOnDisk(id)).toBe("finished");
  // A restart finds it as it ended, and holds nothing for it.
  held.length = 0;
  expect(open().info("k", id)).toMatchObject({ status: "finished", reward: 2 });
  expect(held).toEqual([]);
});

test("a rollout expires on disk with its completions, and not before them", async () => {
  const [quiet, talking] = [await pinned(), await pinned()];
  fullForCompletions = true;
  await ledger.append([completionOf(quiet, { id: "late" })]);
  now = 900;
  await rollouts.patch("k", talking, {});
  await ledger.append([completionOf(talking, { id: "early" })]);
  now = 1500;
  await rollouts.sweep();
  expect(rollouts.info("k", quiet).status).toBe("expired");
  expect(statusOnDisk(quiet)).toBe("open");
  fullForCompletions = false;
  await rollouts.sweep();
  expect([quiet, talking].map(statusOnDisk)).toEqual(["expired", "open"]);
  // Those of the open one did not have to wait for its end either.
  expect(store.all("SELECT id FROM completions ORDER BY id")).toEqual([
    { id: "early" },
    { id: "late" },
  ]);
});
