import { spawn, type ChildProcess } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Health } from "@hone/core";
import { runHere } from "./testing/run-cli.ts";
import { describeBase } from "./cli/serve.ts";
import { startServer, type RunningServer } from "./server.ts";
import { findEnvironment } from "./setup/environment.ts";
import { lockDataDir } from "./store/lock.ts";
import type { SupervisedStatus } from "./supervise/supervisor.ts";

const base = fileURLToPath(new URL("../../../models/hone-2048-1m", import.meta.url));
const cli = fileURLToPath(new URL("./cli.ts", import.meta.url));
const parent = mkdtempSync(join(tmpdir(), "hone-server-"));
afterAll(() => rmSync(parent, { recursive: true, force: true, maxRetries: 5 }));

/** A limit for what hangs. */
const soon = { timeout: 60_000, interval: 20 };

/** The Python of the environment behind a gate: while that is shut, what is started does not come to run. */
async function gatedPython(): Promise<{
  python: string;
  shut(): void;
  open(): void;
  /** Whether anybody has come to the gate while it was shut. */
  met(): boolean;
}> {
  const python = join(mkdtempSync(join(parent, "gate-")), "python");
  const [shut, met] = [`${python}.shut`, `${python}.met`];
  const lines = [
    "#!/bin/sh",
    `while [ -e "${shut}" ]; do : > "${met}"; sleep 0.02; done`,
    `exec "${await findEnvironment()}" "$@"`,
  ];
  writeFileSync(python, `${lines.join("\n")}\n`);
  chmodSync(python, 0o755);
  return {
    python,
    shut: () => writeFileSync(shut, ""),
    open: () => rmSync(shut),
    met: () => existsSync(met),
  };
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function healthOf(server: { url: string; key: string }): Promise<Health> {
  const response = await fetch(`${server.url}/health`, {
    headers: { authorization: `Bearer ${server.key}` },
  });
  return (await response.json()) as Health;
}

async function pidsOf(server: { url: string; key: string }): Promise<number[]> {
  const { components } = await healthOf(server);
  return ["renderer", "worker"].map(
    (name) => (components[name] as unknown as SupervisedStatus).pid ?? -1,
  );
}

function chat(server: { url: string; key: string }): Promise<Response> {
  return fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    body: JSON.stringify({
      model: "hone-2048-1m",
      messages: [{ role: "user", content: "Say a word." }],
      max_tokens: 4,
    }),
  });
}

it("has its data directory for itself from before it reads the key, until it has given up", async () => {
  const dataDir = join(parent, "starting");
  const key = join(dataDir, "key");
  const abort = new AbortController();
  const gate = await gatedPython();
  gate.shut();
  const ended = startServer({ base, dataDir, python: gate.python, signal: abort.signal }).then(
    () => "started",
    () => "given up",
  );
  await vi.waitFor(() => expect(existsSync(key)).toBe(true), soon);
  const before = readFileSync(key, "utf8");
  const rotated = await runHere(["keys", "rotate", "--data-dir", dataDir]);
  expect(rotated).toMatchObject({ code: 1, out: "" });
  expect(rotated.error).toContain(`Another Hone server (pid ${process.pid})`);
  expect(readFileSync(key, "utf8")).toBe(before);
  abort.abort();
  expect(await ended).toBe("given up");
  lockDataDir(dataDir).release();
});

it("refuses two limits of what the engine may keep", async () => {
  const options = { base, dataDir: join(parent, "limits"), kvCacheMib: 96, engineShare: 0.3 };
  await expect(startServer(options)).rejects.toThrow(
    "kvCacheMib and engineShare both say how much the embedded engine may keep. Leave one out.",
  );
});

describe("a running server", () => {
  let server: RunningServer;
  let gate: Awaited<ReturnType<typeof gatedPython>>;
  const dataDir = join(parent, "running");
  beforeAll(async () => {
    gate = await gatedPython();
    server = await startServer({ base, dataDir, python: gate.python, kvCacheMib: 96 });
  });
  afterAll(() => server.close());

  it("serves, and tells clients of this machine where", async () => {
    expect(await healthOf(server)).toMatchObject({ status: "ok", base: "hone-2048-1m" });
    expect((await chat(server)).status).toBe(200);
    const shown = JSON.parse(readFileSync(join(dataDir, "server.json"), "utf8")) as unknown;
    expect(shown).toEqual({ url: server.url, pid: process.pid, base });
    expect(readFileSync(join(dataDir, "key"), "utf8").trim()).toBe(server.key);
  });

  it("tells the engine's counters with its own, and its memory for keys and values", async () => {
    expect((await chat(server)).status).toBe(200);
    const response = await fetch(`${server.url}/metrics`, {
      headers: { authorization: `Bearer ${server.key}` },
    });
    const text = await response.text();
    const value = (name: string): number =>
      Number(new RegExp(`^${name}(?:{.*})? (\\S+)$`, "m").exec(text)?.[1]);
    expect(value("hone_gateway_calls_total")).toBeGreaterThan(0);
    expect(value("hone:kv_cache_bytes")).toBe(96 * 2 ** 20);
    expect(value("vllm:prefix_cache_queries_total")).toBeGreaterThan(0);
    expect(value("hone:kv_histories_evicted_total")).toBe(0);
  });

  it("says what it took for the base, at the start and in its health", async () => {
    const { components } = await healthOf(server);
    const taken = { name: "lean", bridges: true, tools: "template", plainTexts: true };
    expect(components["renderer"]).toMatchObject({ ...taken, dtype: "float32" });
    expect(describeBase(server.base)).toMatch(
      /^hone: base hone-2048-1m, float32 on cpu; renderer lean: turns extend the one before token for token; tools by its template; memory: base 3 MiB, keys and values 96 MiB, a micro-batch [\d.]+ GiB$/,
    );
    const renderer = { ...server.base.renderer, name: "default", bridges: false };
    const { memory: _, ...untold } = server.base;
    expect(describeBase(untold)).not.toContain("memory");
    const other = { ...server.base, renderer: { ...renderer, tools: "convention" as const } };
    expect(describeBase(other)).toMatch(
      /renderer default: turns are rendered anew.*by Hone's convention/,
    );
    const last = {
      ...server.base,
      renderer: { ...renderer, tools: "none" as const, plainTexts: false },
    };
    expect(describeBase(last)).toMatch(
      /; no tools: .*refused; control tokens that a text spells are real ones; memory/,
    );
  });

  it("needs the key on every route that the server has", async () => {
    for (const path of [
      "/health",
      "/metrics",
      "/v1/models",
      "/v1/rollouts/x",
      "/v1/operations/x",
    ]) {
      expect((await fetch(server.url + path)).status).toBe(401);
    }
    const wrongHost = await fetch(`${server.url.replace("127.0.0.1", "localhost")}/health`);
    expect(wrongHost.status).toBe(401);
  });

  it("refuses another server on its port", async () => {
    const port = Number(new URL(server.url).port);
    await expect(startServer({ base, dataDir: join(parent, "port"), port })).rejects.toThrow(
      `Port ${port} on 127.0.0.1 is taken`,
    );
  });

  it("refuses another server on its data, and goes on", async () => {
    await expect(startServer({ base, dataDir })).rejects.toThrow(
      `Another Hone server (pid ${process.pid}) uses the data directory ${dataDir}`,
    );
    expect(await healthOf(server)).toMatchObject({ status: "ok" });
    expect(JSON.parse(readFileSync(join(dataDir, "server.json"), "utf8"))).toMatchObject({
      url: server.url,
    });
  });

  it("brings a killed renderer and a killed worker back; calls meanwhile are told to come again", async () => {
    const before = await pidsOf(server);
    // Their successors wait until it has been seen how calls fare without them.
    gate.shut();
    for (const pid of before) process.kill(pid, "SIGKILL");
    await vi.waitFor(async () => expect((await healthOf(server)).status).not.toBe("ok"), soon);
    const refused = await chat(server);
    expect(refused.status).toBe(503);
    expect(refused.headers.get("x-should-retry")).toBe("true");
    gate.open();
    await vi.waitFor(async () => expect((await healthOf(server)).status).toBe("ok"), soon);
    expect((await chat(server)).status).toBe(200);
    const after = await pidsOf(server);
    for (const pid of before) {
      expect(after).not.toContain(pid);
      expect(alive(pid)).toBe(false);
    }
  });
});

it("closes with all that it started, and opens its data again", async () => {
  const dataDir = join(parent, "reopened");
  const first = await startServer({ base, dataDir });
  const pids = await pidsOf(first);
  await first.close();
  expect(pids.filter(alive)).toEqual([]);
  // Its port may be another's by now, which knows nothing of its key.
  const answered = await healthOf(first).then(
    ({ status }) => status,
    () => undefined,
  );
  expect(answered).toBeUndefined();
  const second = await startServer({ base, dataDir });
  expect(second.key).toBe(first.key);
  await second.close();
});

it("can be given up while it starts", async () => {
  const stop = new AbortController();
  const gate = await gatedPython();
  gate.shut();
  const options = { base, dataDir: join(parent, "given-up"), python: gate.python };
  const starting = startServer({ ...options, signal: stop.signal });
  const outcome = starting.catch((error: unknown) => error);
  await vi.waitFor(() => expect(gate.met()).toBe(true), soon);
  stop.abort();
  expect(await outcome).toMatchObject({ code: "shutting_down" });
  // The lock is free.
  gate.open();
  await (await startServer(options)).close();
});

describe("hone", () => {
  let running: ChildProcess | null = null;
  afterEach(() => running?.kill("SIGKILL"));

  function hone(args: string[], env: Record<string, string> = {}): Promise<Ended> {
    const child = spawn(process.execPath, [...tsx, cli, ...args], {
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    running = child;
    const ended: Ended = { code: null, out: "", error: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => (ended.out += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (ended.error += text));
    return new Promise((resolve) => {
      child.once("close", (code) => resolve({ ...ended, code }));
    });
  }

  it("serves until its input ends; its children go with it when it is killed", async () => {
    const dataDir = join(parent, "cli");
    const ended = hone([
      "serve",
      "--base",
      base,
      "--port",
      "0",
      "--data-dir",
      dataDir,
      "--stop-at-eof",
    ]);
    let server = await announced(running);
    let pids = await pidsOf(server);
    running?.stdin?.end();
    expect((await ended).code).toBe(0);
    expect(pids.filter(alive)).toEqual([]);

    const killed = hone(["serve", "--base", base, "--port", "0", "--data-dir", dataDir]);
    server = await announced(running);
    pids = await pidsOf(server);
    running?.kill("SIGKILL");
    await killed;
    // Within a second or two where the machine is not busy with other tests.
    await vi.waitFor(() => expect(pids.filter(alive)).toEqual([]), soon);
  });

  it.each([
    ["a base that does not exist", ["--base", "./no/such/folder"], "There is no folder"],
    ["a folder that is no model", ["--base", parent], "it has no config.json"],
    ["an option that it does not know", ["--base", base, "--colour", "red"], "unknown option"],
    ["a device that it does not know", ["--base", base, "--device", "tpu"], "Allowed choices"],
    ["no base", [], "--base"],
  ])("says in a line that it was given %s", async (_what, args, message) => {
    const ended = await hone([
      "serve",
      "--port",
      "0",
      "--data-dir",
      join(parent, "wrong"),
      ...args,
    ]);
    expect(ended.code).toBe(1);
    expect(ended.error).toContain(message);
    expect(ended.error).not.toContain("    at ");
    expect(ended.out).toBe("");
  });

  it("says in a line that the port is taken, the Python wrong, the weights missing", async () => {
    const stranger = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => stranger.once("listening", resolve));
    const { port } = stranger.address() as AddressInfo;
    const data = ["--data-dir", join(parent, "faults")];
    const taken = await hone(["serve", "--base", base, "--port", String(port), ...data]);
    stranger.close();
    expect(taken.code).toBe(1);
    expect(taken.error.trim()).toBe(
      `hone: Port ${port} on 127.0.0.1 is taken. Stop what listens there, or choose another port (0 for any free one).`,
    );

    const serve = ["serve", "--base", base, "--port", "0", ...data];
    const noPython = await hone(serve, { HONE_PYTHON: "/no/python" });
    expect(noPython.code).toBe(1);
    expect(noPython.error).toContain("HONE_PYTHON is /no/python");
    const noSetup = await hone(serve, { HONE_PYTHON: "", HONE_CACHE: join(parent, "cache") });
    expect(noSetup.code).toBe(1);
    expect(noSetup.error).toContain("hone/server setup");

    const hollow = join(parent, "hollow");
    mkdirSync(hollow);
    writeFileSync(join(hollow, "config.json"), "{}");
    const broken = await hone(["serve", "--base", hollow, "--port", "0", ...data]);
    expect(broken.code).toBe(1);
    // A machine that is slow to start it says that first.
    const told = broken.error
      .split("\n")
      .filter((line) => line && !line.startsWith("hone: starting,"));
    expect(told).toEqual([expect.stringMatching(/^hone: The renderer did not start: /)]);
  });

  it("has help", async () => {
    const { code, out } = await hone(["--help"]);
    expect(code).toBe(0);
    expect(out).toContain("serve");
    expect(out).toContain("setup");
  });
});

interface Ended {
  code: number | null;
  out: string;
  error: string;
}

const tsx = ["--import", "tsx", "--conditions=@hone/source"];

function announced(child: ChildProcess | null): Promise<{ url: string; key: string }> {
  return new Promise((resolve, reject) => {
    let out = "";
    child?.once("exit", () => reject(new Error("it ended")));
    child?.stdout?.on("data", (text: string) => {
      out += text;
      const url = /^export HONE_URL=(.+)$/m.exec(out)?.[1];
      const key = /^export HONE_API_KEY=(.+)$/m.exec(out)?.[1];
      if (url && key) resolve({ url, key });
    });
  });
}
