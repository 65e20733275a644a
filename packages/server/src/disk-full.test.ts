import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startCli } from "./testing/run-cli.ts";
import { workerPython } from "./testing/running-engine.ts";
import { isStopped } from "./testing/stopped.ts";

const base = fileURLToPath(new URL("../../../models/hone-2048-1m", import.meta.url));
const parent = mkdtempSync(join(tmpdir(), "hone-full-"));
const dataDir = join(parent, "data");
mkdirSync(dataDir);
afterAll(() => rmSync(parent, { recursive: true, force: true, maxRetries: 5 }));

/** A mount namespace of its own: the small disk is gone with the server, however that ends. */
const small = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  `mount -t tmpfs -o size=24m tmpfs "${dataDir}" && exec "$0" "$@"`,
];

function whyNot(): string | null {
  if (!workerPython()) return "there is no Python environment";
  try {
    execFileSync(small[0]!, [...small.slice(1), "true"], { stdio: "pipe" });
    return null;
  } catch {
    return "a small disk cannot be mounted here (it needs root and Linux)";
  }
}

async function until(holds: () => boolean): Promise<void> {
  const startedAt = Date.now();
  while (!holds()) {
    if (Date.now() - startedAt > 100_000) throw new Error("it did not come to pass");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const skipped = whyNot();
if (skipped) console.warn(`The tests of a full disk are left out: ${skipped}.`);

// In order: the second step is the one that the fault stops.
describe.skipIf(skipped)("a full disk", { shuffle: false }, () => {
  let server: ReturnType<typeof startCli>;
  let url = "";
  let key = "";
  /** The server's own view of its data directory. */
  let disk = "";

  // oxlint-disable-next-line typescript/no-explicit-any
  type Answer = { status: number; json: any };
  async function call(method: string, path: string, body?: unknown): Promise<Answer> {
    const response = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, json: await response.json() };
  }

  const chat = (path: string): Promise<Answer> =>
    call("POST", path, {
      model: "m",
      messages: [{ role: "user", content: "Say a word." }],
      max_tokens: 4,
    });

  /** Leaves about so many bytes. */
  function fill(leave: number): void {
    const { bavail, bsize } = statfsSync(disk);
    const size = bavail * bsize - leave;
    if (size > 0)
      writeFileSync(join(disk, `filler-${readdirSync(disk).length}`), Buffer.alloc(size));
  }

  function free(): void {
    for (const name of readdirSync(disk)) if (name.startsWith("filler")) rmSync(join(disk, name));
  }

  async function rollout(reward: number): Promise<{ rolloutId: string; reward: number }> {
    const { json } = await call("POST", "/v1/rollouts", { model: "m" });
    expect((await chat(`/v1/rollouts/${json.id}/v1/chat/completions`)).status).toBe(200);
    return { rolloutId: json.id, reward };
  }

  let tokens = 0;
  async function train(rollouts: { rolloutId: string; reward: number }[]): Promise<Answer["json"]> {
    const op = { type: "train", groups: [{ id: "g", rollouts }] };
    const body = { clientToken: `t${tokens++}`, op };
    const submitted = await call("POST", "/v1/models/m/operations", body);
    if (submitted.status !== 200) return { status: "refused", error: submitted.json.error };
    for (;;) {
      const { json } = await call("GET", `/v1/operations/${submitted.json.id}`);
      if (json.status !== "queued" && json.status !== "running") return json;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  beforeAll(async () => {
    const args = ["serve", "--base", base, "--port", "0", "--data-dir", dataDir];
    const env = { HONE_PYTHON: workerPython()!, HONE_FAULT: "operation.staged@2:stop" };
    server = startCli(args, env, small);
    while (!/HONE_API_KEY=/.test(server.output())) {
      if (server.child.exitCode !== null || server.child.signalCode)
        throw new Error((await server.ended).error);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    url = /HONE_URL=(\S+)/.exec(server.output())?.[1] ?? "";
    key = /HONE_API_KEY=(\S+)/.exec(server.output())?.[1] ?? "";
    disk = `/proc/${server.child.pid}/root${dataDir}`;
    expect((await call("PUT", "/v1/models/m", {})).status).toBe(200);
  });
  afterAll(async () => {
    server?.child.kill("SIGTERM");
    await server?.ended;
  });

  test("where a checkpoint does not fit, the step fails and says so; it trains once there is room", async () => {
    const rollouts = [await rollout(0), await rollout(1)];
    fill(1024 * 1024);
    const failed = await train(rollouts);
    expect(failed).toMatchObject({ status: "failed", error: { code: "disk_full" } });
    expect((await chat("/v1/chat/completions")).status).toBe(200);
    free();
    // Its rollouts are free again.
    expect(await train(rollouts)).toMatchObject({ status: "succeeded", result: { step: 1 } });
  });

  test("the trainer's own writes say so too", async () => {
    const rollouts = [await rollout(0), await rollout(1)];
    const { json } = await call("GET", "/v1/models/m/policies/1");
    const needed = Object.values(json.files as Record<string, { bytes: number }>).reduce(
      (total, { bytes }) => total + bytes,
      0,
    );
    // The check before the step finds room; then somebody else takes it.
    fill(needed * 2 + 2 * 1024 * 1024);
    const outcome = train(rollouts);
    await until(() => isStopped(server.child.pid));
    const staging = join(disk, "models/m/staging");
    expect(readdirSync(staging)).toHaveLength(1);
    fill(16 * 1024);
    server.child.kill("SIGCONT");
    // Its end may have to wait for room, as everything that has to be written; what it had written is gone.
    await until(() => readdirSync(staging).length === 0);
    free();
    expect(await outcome).toMatchObject({ status: "failed", error: { code: "disk_full" } });
    expect(await train(rollouts)).toMatchObject({ status: "succeeded", result: { step: 2 } });
  });

  test("a database and a ledger that cannot be written refuse what would be lost, and lose nothing", async () => {
    const { json: open } = await call("POST", "/v1/rollouts", { model: "m" });
    const path = `/v1/rollouts/${open.id}`;
    // SQLite writes on in the space that its log has already: it must be gone.
    fill(0);
    let refused: Answer | null = null;
    for (let i = 0; i < 200 && !refused; i++) {
      const created = await call("POST", "/v1/rollouts", {
        model: "m",
        scenario: "x".repeat(20_000),
      });
      if (created.status !== 200) refused = created;
    }
    expect(refused).toMatchObject({ status: 507, json: { error: { code: "disk_full" } } });
    // Serving goes on; the completion waits in memory.
    expect((await chat("/v1/chat/completions")).status).toBe(200);
    expect((await chat(`${path}/v1/chat/completions`)).status).toBe(200);
    const finish = { status: "finished", reward: 1 };
    const lost = await call("PATCH", path, { ...finish, logs: ["y".repeat(100_000)] });
    expect(lost).toMatchObject({ status: 507, json: { error: { code: "disk_full" } } });
    const model = await call("PUT", "/v1/models/n", {});
    expect(model).toMatchObject({ status: 507, json: { error: { code: "disk_full" } } });
    free();
    expect(await call("PATCH", path, finish)).toMatchObject({
      status: 200,
      json: { status: "finished", completions: 1 },
    });
    expect((await call("PUT", "/v1/models/n", {})).status).toBe(200);
    expect((await call("GET", `${path}/completions`)).json.data).toHaveLength(1);
    const other = await rollout(0);
    expect(await train([{ rolloutId: open.id, reward: 1 }, other])).toMatchObject({
      status: "succeeded",
    });
  });
});
