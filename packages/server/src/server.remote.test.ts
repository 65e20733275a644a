import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Health } from "@hone/core";
import { pino } from "pino";
import { afterAll, expect, it, vi } from "vitest";
import { startServer } from "./server.ts";
import { findEnvironment } from "./setup/environment.ts";
import { workerDir } from "./setup/paths.ts";
import { startChild, type Child } from "./supervise/child.ts";

const base = fileURLToPath(new URL("../../../models/hone-2048-1m", import.meta.url));
const engineKey = "the-key-of-the-engine";
const dataDir = mkdtempSync(join(tmpdir(), "hone-remote-"));
const closers: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closers.toReversed()) await close();
  rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 });
});

/** An engine that is nobody's child: another worker, which speaks the same contract as vLLM. */
async function startEngine(): Promise<Child> {
  const engine = await startChild({
    name: "engine",
    unavailable: "engine_unavailable",
    // Its key outlives its process, as that of an engine that others run.
    command: "env",
    args: [
      `HONE_WORKER_KEY=${engineKey}`,
      await findEnvironment(),
      ...["-m", "hone_worker.worker", "--base", base, "--served-name", "their-name"],
    ],
    env: { PYTHONPATH: workerDir },
    readyTimeoutMs: 300_000,
    log: pino({ level: "silent" }),
  });
  closers.push(() => engine.stop());
  return engine;
}

/** The one address under which the engine is known, whichever process is behind it. */
async function startProxy(target: () => string): Promise<{ url: string; server: Server }> {
  const server = createServer((socket) => {
    const { port, hostname } = new URL(target());
    const onward = connect(Number(port), hostname);
    for (const end of [socket, onward])
      end.on("error", () => [socket, onward].forEach((s) => s.destroy()));
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => new Promise((resolve) => server.close(resolve)));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

it("uses an engine by its URL, and gives it the live policies when it comes back as another process", async () => {
  let engine = await startEngine();
  const proxy = await startProxy(() => engine.baseURL);
  const server = await startServer({
    base,
    dataDir,
    engineURL: proxy.url,
    engineKey,
    leaseMs: 60_000,
  });
  closers.push(() => server.close());
  const send = (path: string, method: string, body: object): Promise<Response> =>
    fetch(server.url + path, {
      method,
      body: JSON.stringify(body),
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    });
  const chat = (model: string): Promise<Response> =>
    send("/v1/chat/completions", "POST", {
      model,
      messages: [{ role: "user", content: "Say a word." }],
      max_tokens: 4,
    });

  expect((await send("/v1/models/remote-model", "PUT", {})).status).toBeLessThan(300);
  const first = await chat("remote-model");
  expect(await first.json()).toMatchObject({ model: "remote-model@0" });
  // The base answers to the engine's name for it.
  expect((await chat("their-name")).status).toBe(200);

  // Somebody else unloads one policy of many.
  expect((await send("/v1/models/other-model", "PUT", {})).status).toBeLessThan(300);
  await fetch(`${engine.baseURL}/v1/unload_lora_adapter`, {
    method: "POST",
    body: JSON.stringify({ lora_name: "remote-model@0" }),
    headers: { authorization: `Bearer ${engineKey}`, "content-type": "application/json" },
  });
  // A moment of 404, then 503 while it is loaded again.
  const soon = { timeout: 60_000, interval: 100 };
  await vi.waitFor(async () => {
    const response = await fetch(`${server.url}/health`, {
      headers: { authorization: `Bearer ${server.key}` },
    });
    const { components } = (await response.json()) as Health;
    expect(components["engine"]).toMatchObject({ state: "ready" });
    expect(components["engine"]?.["restarts"]).toBeGreaterThan(0);
    expect((await chat("remote-model")).status).toBe(200);
  }, soon);

  await engine.kill();
  await vi.waitFor(async () => expect((await chat("remote-model")).status).toBe(503), soon);
  engine = await startEngine();
  await vi.waitFor(async () => expect((await chat("remote-model")).status).toBe(200), soon);
});

it("publishes without an engine that hangs, and gives it what it missed before it is asked again", async () => {
  const [a, b] = await Promise.all([startEngine(), startEngine()]);
  const server = await startServer({
    ...{ base, engineKey, dataDir: join(dataDir, "two"), publishDeadlineMs: 2_000 },
    engineURL: [a.baseURL, b.baseURL],
  });
  closers.push(() => server.close());
  const ask = async (path: string, method = "GET", body?: object) => {
    const response = await fetch(server.url + path, {
      method,
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
      ...(body && { body: JSON.stringify(body) }),
    });
    // oxlint-disable-next-line typescript/no-explicit-any
    return { status: response.status, json: (await response.json()) as any };
  };
  const question = [{ role: "user", content: "Say a word." }];
  const said = async () => {
    const settings = { model: "m", messages: question, max_tokens: 8, temperature: 0 };
    const { status, json } = await ask("/v1/chat/completions", "POST", settings);
    return { status, model: json.model, content: json.choices?.[0]?.message.content };
  };
  const engine2 = async () => (await ask("/health")).json.components["engine-2"];
  const soon = { timeout: 60_000, interval: 100 };

  expect((await ask("/v1/models/m", "PUT", { lora: { r: 4 } })).status).toBeLessThan(300);
  const before = await said();
  process.kill(-b.pid, "SIGSTOP");
  try {
    const { json } = await ask("/v1/models/m/operations", "POST", {
      clientToken: "step",
      op: {
        type: "sft",
        examples: [{ messages: [...question, { role: "assistant", content: "2048" }] }],
        config: { learningRate: 0.05, warmupSteps: 0 },
      },
    });
    await vi.waitFor(async () => {
      expect((await ask(`/v1/operations/${json.id}`)).json).toMatchObject({ status: "succeeded" });
    }, soon);
    expect(await engine2()).toMatchObject({
      state: "fenced",
      reason: expect.stringContaining("not ready for m@1 after 2 s"),
    });
    expect(await said()).toMatchObject({ status: 200, model: "m@1" });
  } finally {
    process.kill(-b.pid, "SIGCONT");
  }
  const trained = await said();
  expect(trained.content).not.toBe(before.content);
  await vi.waitFor(async () => expect(await engine2()).toMatchObject({ state: "ready" }), soon);
  // Only the one that was late is there now: what it answers shows what it serves.
  await a.kill();
  await vi.waitFor(async () => expect(await said()).toEqual(trained), soon);
});

it("says so when no engine answers there", async () => {
  await expect(
    startServer({ base, dataDir: join(dataDir, "none"), engineURL: "http://127.0.0.1:9" }),
  ).rejects.toMatchObject({ code: "engine_unavailable" });
});
