import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { check } from "../faults/checker.ts";
import { openDatabase } from "../faults/database.ts";
import { freePort } from "../faults/server-process.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const program = fileURLToPath(new URL("train-loop.ts", import.meta.url));
const root = fileURLToPath(new URL("../..", import.meta.url));

interface Said {
  at: string;
  step: number;
}

let folder: string;
let server: TestServer;
let running: ChildProcess | null = null;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-resume-"));
  server = await startTestServer(join(folder, "data"), { leaseMs: 4_000, port: await freePort() });
});
afterEach(async () => {
  running?.kill("SIGKILL");
  await server.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

/** Runs the program until it says what is waited for, where it waits to be killed; without that, to its end. */
async function run(killAt?: Said): Promise<Said[]> {
  const child = spawn(process.execPath, ["--import", "tsx", "--conditions=@hone/source", program], {
    cwd: root,
    env: {
      ...process.env,
      HONE_URL: server.url,
      HONE_API_KEY: server.key,
      HONE_TEST_WAITS_AT: killAt ? `${killAt.at} ${killAt.step}` : "",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  running = child;
  const said: Said[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const entry = JSON.parse(line) as Said;
    said.push(entry);
    if (entry.at === killAt?.at && entry.step === killAt.step) child.kill("SIGKILL");
  });
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.once("close", (...end) => resolve(end));
  });
  expect([code, signal]).toEqual(killAt ? [null, "SIGKILL"] : [0, null]);
  return said;
}

it("a program that is killed goes on at the cursor, and nothing trains twice", async () => {
  const first = await run({ at: "played", step: 1 });
  expect(first[0]).toEqual({ at: "batch", step: 0 });
  // In the middle of playing batch 1: it is played again, from its beginning.
  const second = await run({ at: "started", step: 2 });
  expect(second[0]).toEqual({ at: "batch", step: 1 });
  // In the middle of training batch 2: the server ends that step, and the next start waits for it.
  const third = await run();
  expect(third[0]).toEqual({ at: "batch", step: 3 });
  expect(third.at(-1)?.at).toBe("done");

  const model = await server.hone.model({ name: "loop" });
  expect(await model.info()).toMatchObject({ learnt: 4, cursor: { step: 4, position: 8 } });
  const open = async (): Promise<number> => {
    const database = openDatabase(server.dataDir);
    const rows = database.prepare("SELECT id FROM rollouts WHERE status = 'open'").all();
    database.close();
    return rows.length;
  };
  // Those of the killed program end with their lease.
  await expect.poll(open, { timeout: 120_000, interval: 250 }).toBe(0);
  const port = Number(new URL(server.url).port);
  await server.close();
  const { dataDir } = server;
  expect(await check({ dataDir, mark: "none", port, model: "loop", step: 4 })).toEqual([]);
  server = await startTestServer(dataDir, { port: await freePort() });
});
