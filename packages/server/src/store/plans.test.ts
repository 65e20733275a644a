import { createHash } from "node:crypto";
import { join } from "node:path";
import Database from "libsql";
import AsyncDatabase from "libsql/promise";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";
import { migrations } from "./schema.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const statements = new Set<string>();
beforeEach(async () => {
  folder = await temporaryFolder();
  statements.clear();
  for (const database of [Database, AsyncDatabase] as unknown as { prototype: Prepares }[]) {
    const prepare = database.prototype.prepare;
    vi.spyOn(database.prototype, "prepare").mockImplementation(function (this: Prepares, sql) {
      statements.add(sql);
      return prepare.call(this, sql);
    });
  }
});
afterEach(async () => {
  vi.restoreAllMocks();
  await folder.remove();
});

interface Prepares {
  prepare(sql: string): unknown;
}

function open(): Promise<TestState> {
  const engine = adapterList();
  return openTestState(folder.path, { engine: () => engine, trainer: fileTrainer(), keep: 1 });
}

async function useEverything(server: TestState): Promise<void> {
  await server.call("PUT", "/v1/models/m", {});
  for (const token of ["a", "b"]) {
    const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
    const body = { clientToken: token, op: { type: "train", groups } };
    const { json } = await server.call("POST", "/v1/models/m/operations", body);
    await ended(server, json.id);
    await (await server.app.request(`/v1/operations/${json.id}/events`)).text();
    await server.call("POST", `/v1/operations/${json.id}/abort`);
  }
  const { json: failed } = await server.call("POST", "/v1/rollouts", { model: "m", mode: "eval" });
  const lease = await server.state.router.leaseForRollout("local", failed.id, "m");
  lease.release();
  await server.call("PATCH", `/v1/rollouts/${failed.id}`, { status: "failed", reward: 1 });
  await server.call("GET", `/v1/rollouts/${failed.id}/completions`);
  await server.call("GET", `/v1/rollouts/${failed.id}/trajectory`);

  const values = { mode: "eval", status: "failed", step: "2", operation: "op", group: "g" };
  const filters = Object.entries(values).map(([key, value]) => `${key}=${value}`);
  for (let chosen = 0; chosen < 2 ** filters.length; chosen++) {
    const query = filters.filter((_, at) => chosen & (1 << at)).join("&");
    for (const after of ["", `&after=${failed.id}`]) {
      const { status } = await server.call("GET", `/v1/models/m/rollouts?${query}${after}`);
      expect(status).toBe(200);
    }
  }
  for (const query of ["", "?type=train"]) {
    await server.call("GET", `/v1/models/m/operations${query}`);
  }
  await server.call("GET", "/v1/models/m/policies");
  await server.call("GET", "/v1/models/m/policies/1");
  await server.state.sweep();
  for (const dryRun of [true, false]) {
    await server.call("POST", "/v1/gc", { dryRun, olderThanMs: 0 });
  }
  await server.call("DELETE", "/v1/models/m");
  const cleared = () => [...statements].some((sql) => /UPDATE deleted_models/.test(sql));
  await expect.poll(cleared, { interval: 10, timeout: 60_000 }).toBe(true);
  await server.state.close();
}

test("no statement looks through a table that grows, and no list is sorted", async () => {
  // The second time there are models, operations and open rollouts to begin with.
  const server = await open();
  await server.call("PUT", "/v1/models/n", {});
  await server.call("POST", "/v1/rollouts", { model: "n" });
  await useEverything(await server.reopen());
  const database = new Database(join(folder.path, "hone.db"));
  const wrong: string[] = [];
  for (const sql of statements) {
    if (!/^\s*(SELECT|WITH|UPDATE|DELETE|INSERT)/.test(sql)) continue;
    const places = Array.from({ length: sql.split("?").length - 1 }, () => null);
    const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(places) as { detail: string }[];
    // What was found is at most a page.
    const ofPage = plan.some(({ detail }) => detail === "SCAN page");
    for (const { detail } of plan) {
      const scans = /SCAN (?:o|c|e|r|rollouts|completions|operations|operation_events)\b/.test(
        detail,
      );
      // Of an index that holds only what is looked for, all is read.
      const partial = /USING (?:COVERING )?INDEX (rollouts_open|operations_unfinished)\b/.test(
        detail,
      );
      const sorts =
        /TEMP B-TREE FOR ORDER BY/.test(detail) && !ofPage && !/FROM models\b/.test(sql);
      if ((scans && !partial) || sorts) wrong.push(`${detail}: ${sql}`);
    }
  }
  database.close();
  expect(wrong).toEqual([]);
  expect(statements.size).toBeGreaterThan(30);
});

test("a data directory of an earlier version gets its indices, and what was evaluated is counted", async () => {
  const database = new Database(join(folder.path, "hone.db"));
  for (const sql of migrations.slice(0, 4)) database.exec(sql);
  database.exec("PRAGMA user_version = 4");
  const insert = database.prepare(
    `INSERT INTO rollouts (id, key_id, model, mode, status, body_sha, policy_step, reward, metrics, metadata, logs,
       created_at, closed_at) VALUES (?, 'local', 'm', ?, ?, ?, 0, ?, '{}', '{}', '[]', ?, ?)`,
  );
  const sha = createHash("sha256").update("").digest("hex");
  insert.run("e1", "eval", "finished", sha, 1, 1, 2);
  insert.run("e2", "eval", "finished", sha, 0.5, 2, 3);
  insert.run("e3", "eval", "finished", sha, null, 3, 4);
  insert.run("e4", "eval", "failed", sha, 1, 4, 5);
  insert.run("t1", "train", "finished", sha, 1, 5, 6);
  insert.run("e5", "eval", "open", sha, null, 6, null);
  database.close();

  const server = await open();
  await server.call("PUT", "/v1/models/m", {});
  const evaluated = async () =>
    (await server.call("GET", "/v1/models/m/policies/0")).json.evaluated as object;
  const { json } = await server.call("GET", "/v1/models/m/rollouts?step=0&mode=eval");
  expect(json.data.map(({ id }: { id: string }) => id)).toEqual(["e5", "e4", "e3", "e2", "e1"]);
  expect(await evaluated()).toEqual({ rollouts: 2, reward: 0.75 });
  await server.call("PATCH", "/v1/rollouts/e5", { status: "finished" });
  expect(await evaluated()).toEqual({ rollouts: 2, reward: 0.75 });
  // A reward may come later, and may change.
  await server.call("PATCH", "/v1/rollouts/e5", { reward: 0 });
  expect(await evaluated()).toEqual({ rollouts: 3, reward: 0.5 });
  await server.call("PATCH", "/v1/rollouts/e5", { reward: 1.5 });
  expect(await evaluated()).toEqual({ rollouts: 3, reward: 1 });
  await server.call("PATCH", "/v1/rollouts/e1", { reward: null });
  expect(await evaluated()).toEqual({ rollouts: 2, reward: 1 });
  await server.state.close();
});
