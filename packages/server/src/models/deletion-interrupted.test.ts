import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "libsql";
import { afterAll, expect, test } from "vitest";
import {
  adapterList,
  completionOf,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
} from "../testing/fixtures.ts";

const parent = mkdtempSync(join(tmpdir(), "hone-deletion-"));
afterAll(() => rmSync(parent, { recursive: true, force: true }));
const script = fileURLToPath(new URL("../testing/delete-model.ts", import.meta.url));

async function filled(dataDir: string): Promise<void> {
  const engine = adapterList();
  const server = await openTestState(dataDir, { engine: () => engine, trainer: fileTrainer() });
  await server.call("PUT", "/v1/models/m", {});
  await server.call("PUT", "/v1/models/other", {});
  const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
  const body = { clientToken: "t", op: { type: "train", groups } };
  await ended(server, (await server.call("POST", "/v1/models/m/operations", body)).json.id);
  const ids = Array.from({ length: 250 }, (_, at) => `r${at}`);
  const begun = ids.map((id) => ({ id, model: id === "r0" ? "other" : "m" }));
  await server.call("POST", "/v1/batch/rollouts", { rollouts: begun });
  await server.state.ledger.append(ids.map((id) => completionOf(id)));
  const ends = ids.map((id) => ({ id, status: "finished" }));
  await server.call("PATCH", "/v1/batch/rollouts", { rollouts: ends });
  await server.state.close();
}

function count(dataDir: string, table: string): number {
  const database = new Database(join(dataDir, "hone.db"));
  const row = database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number };
  database.close();
  return row.n;
}

test.each([
  { point: "deletion.after-row", rollouts: 252 },
  { point: "deletion.after-files", rollouts: 252 },
  { point: "deletion.after-part@2", rollouts: 52 },
])("a deletion that was killed at $point is finished by the next start", async (given) => {
  const dataDir = mkdtempSync(join(parent, "data-"));
  await filled(dataDir);
  const args = ["--import", "tsx", "--conditions=@hone/source", script, dataDir, "m"];
  const env = { ...process.env, HONE_FAULT: `${given.point}:kill` };
  const child = spawn(process.execPath, args, { env, stdio: "inherit" });
  const [, signal] = (await once(child, "exit")) as [number | null, string | null];
  expect(signal).toBe("SIGKILL");
  expect(count(dataDir, "rollouts")).toBe(given.rollouts);

  // The model is gone from the first moment, and what is left of it goes.
  const engine = adapterList();
  const server = await openTestState(dataDir, { engine: () => engine, trainer: fileTrainer() });
  expect([...engine.names]).toEqual(["other@0"]);
  expect((await server.call("GET", "/v1/models/m/state")).status).toBe(404);
  expect((await server.call("PUT", "/v1/models/m", {})).json.error.code).toBe("model_deleted");
  const uncleared = () => count(dataDir, "deleted_models WHERE cleared_at IS NULL");
  await expect.poll(uncleared, { interval: 10, timeout: 10_000 }).toBe(0);
  await server.state.close();
  expect(existsSync(join(dataDir, "models/m"))).toBe(false);
  for (const [table, rows] of Object.entries({
    rollouts: 1,
    completions: 1,
    operations: 0,
    operation_events: 0,
  })) {
    expect([table, count(dataDir, table)]).toEqual([table, rows]);
  }
});
