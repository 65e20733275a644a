import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "libsql";
import { expect } from "vitest";
import { completionOf, type TestState } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const script = fileURLToPath(new URL("../testing/delete-model.ts", import.meta.url));
const test = stateTest.extend("models", ["m", "other"]);

async function fill(server: TestState): Promise<void> {
  await server.train();
  const ids = Array.from({ length: 250 }, (_, at) => `r${at}`);
  const begun = ids.map((id) => ({ id, model: id === "r0" ? "other" : "m" }));
  await server.call("POST", "/v1/batch/rollouts", { rollouts: begun });
  await server.state.ledger.append(ids.map((id) => completionOf(id)));
  const ends = ids.map((id) => ({ id, status: "finished" }));
  await server.call("PATCH", "/v1/batch/rollouts", { rollouts: ends });
}

function count(dataDir: string, table: string): number {
  const database = new Database(join(dataDir, "hone.db"));
  const row = database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number };
  database.close();
  return row.n;
}

test.for([
  { point: "deletion.after-row", rollouts: 252 },
  { point: "deletion.after-files", rollouts: 252 },
  { point: "deletion.after-part@2", rollouts: 52 },
])(
  "a deletion that was killed at $point is finished by the next start",
  async (given, { folder: dataDir, engine, server }) => {
    await fill(server);
    await server.close();
    const args = ["--import", "tsx", "--conditions=@hone/source", script, dataDir, "m"];
    const env = { ...process.env, HONE_FAULT: `${given.point}:kill` };
    const child = spawn(process.execPath, args, { env, stdio: "inherit" });
    const [, signal] = (await once(child, "exit")) as [number | null, string | null];
    expect(signal).toBe("SIGKILL");
    expect(count(dataDir, "rollouts")).toBe(given.rollouts);

    // The model is gone from the first moment, and what is left of it goes.
    engine.names.clear();
    await server.open();
    expect([...engine.names]).toEqual(["other@0"]);
    expect((await server.call("GET", "/v1/models/m/state")).status).toBe(404);
    expect((await server.call("PUT", "/v1/models/m", {})).json.error.code).toBe("model_deleted");
    const uncleared = () => count(dataDir, "deleted_models WHERE cleared_at IS NULL");
    await expect.poll(uncleared, { interval: 10, timeout: 60_000 }).toBe(0);
    await server.close();
    expect(existsSync(join(dataDir, "models/m"))).toBe(false);
    for (const [table, rows] of Object.entries({
      rollouts: 1,
      completions: 1,
      operations: 0,
      operation_events: 0,
    })) {
      expect([table, count(dataDir, table)]).toEqual([table, rows]);
    }
  },
);
