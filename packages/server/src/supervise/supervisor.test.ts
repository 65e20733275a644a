import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { supervise, type Supervised, type SupervisorOptions } from "./supervisor.ts";

const script = fileURLToPath(new URL("../testing/supervised-child.mjs", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hone-supervise-"));
const running: Supervised[] = [];

function child(fault = "", options: Partial<SupervisorOptions> = {}): Supervised {
  const supervised = supervise({
    name: "child",
    unavailable: "worker_unavailable",
    command: process.execPath,
    args: [script],
    env: { FAULT: fault, MARK: join(folder, `mark-${running.length}`) },
    log: pino({ level: "silent" }),
    pollMs: 30,
    backoffMs: 20,
    ...options,
  });
  running.push(supervised);
  return supervised;
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function pidOf(supervised: Supervised): number {
  const { pid } = supervised.status();
  if (pid === null) throw new Error("there is no child");
  return pid;
}

function ask(supervised: Supervised, path: string): Promise<Response> {
  return fetch(supervised.baseURL() + path, {
    headers: { authorization: `Bearer ${supervised.key()}` },
  });
}

afterEach(async () => {
  await Promise.all(running.map((supervised) => supervised.stop()));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

/** A limit for what hangs. */
const soon = { timeout: 60_000, interval: 20 };

it("starts a child under a key of its own, and ends it", async () => {
  vi.stubEnv("HONE_API_KEY", "the public key");
  const supervised = child();
  expect(() => supervised.baseURL()).toThrow(
    expect.objectContaining({ code: "worker_unavailable" }),
  );
  await supervised.start();
  vi.unstubAllEnvs();
  const pid = pidOf(supervised);
  expect(supervised.status()).toMatchObject({ state: "ready", restarts: 0, phase: "idle" });
  expect(await (await ask(supervised, "/health")).json()).not.toHaveProperty("key");
  expect((await fetch(`${supervised.baseURL()}/health`)).status).toBe(401);

  await supervised.stop();
  expect(alive(pid)).toBe(false);
  expect(() => supervised.baseURL()).toThrow("stopping");
});

it("runs without a log where none can be written, and says so", async () => {
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => void lines.push(line) });
  // A file stands where its folder would be.
  writeFileSync(join(folder, "taken"), "");
  const supervised = child("", { logFile: join(folder, "taken", "child.log"), log });
  await supervised.start();
  expect(supervised.status().state).toBe("ready");
  expect(lines.join("")).toContain("a child's log cannot be written");
});

it.each(["HONE_API_KEY", "HONE_JOIN_TOKEN", "AWS_SECRET_ACCESS_KEY"])(
  "keeps %s from its children",
  async (variable) => {
    vi.stubEnv(variable, "a right of this process");
    const failure = await child("shows-environment").start().catch(String);
    vi.unstubAllEnvs();
    expect(failure).toContain("HONE_WORKER_KEY");
    expect(failure).not.toContain(variable);
  },
);

it("says why the first start failed, and does not try it again", async () => {
  const supervised = child("dies-at-start");
  await expect(supervised.start()).rejects.toThrow(
    "The child did not start: it ended with status 3. Its last lines: Traceback of something | no base at /nowhere",
  );
  expect(supervised.status()).toMatchObject({ state: "failed", pid: null });
});

it("shows the error that the child reported, or the end of its traceback", async () => {
  const reported = { error: { message: "No weights\nat /nowhere.", code: "bad_base" } };
  await expect(child("", { env: { LAST: JSON.stringify(reported) } }).start()).rejects.toThrow(
    /status 5\. No weights at \/nowhere\.$/,
  );
  const traceback = "ModuleNotFoundError: No module named 'torch'";
  await expect(child("", { env: { LAST: traceback } }).start()).rejects.toThrow(
    `it ended with status 5. ${traceback}`,
  );
});

it.each([
  ["a program that does not exist", { command: "/nonexistent/python" }, "ENOENT"],
  ["the ready line of another boot", { env: { FAULT: "wrong-boot" } }, "ready line is wrong"],
  [
    "silence",
    { env: { FAULT: "never-ready" }, deadlines: { startingMs: 400 } },
    "was not ready after 0.4 s",
  ],
])("refuses %s", async (_what, options, message) => {
  const supervised = child("", options);
  await expect(supervised.start()).rejects.toThrow(message);
  expect(supervised.status().pid).toBeNull();
});

it("waits for a slow start as long as it makes progress, and tells what it is at", async () => {
  const slow = child("slow-start", { deadlines: { startingMs: 2_000 } });
  const start = slow.start();
  for (const phase of ["loading", "compiling"]) {
    await vi.waitFor(() => expect(slow.status()).toMatchObject({ state: "starting", phase }), soon);
  }
  await start;
  expect(slow.status()).toMatchObject({ state: "ready", phase: "idle", restarts: 0 });
  await expect(child("stuck-start", { deadlines: { startingMs: 2_000 } }).start()).rejects.toThrow(
    "The child did not start: it made no progress for 2 s while loading.",
  );
});

it("asks a child of another contract in that contract's way", async () => {
  let asked = 0;
  const health = async () => ({ phase: "decoding" as const, progress: Math.min(asked++, 3) });
  const supervised = child("", { health, deadlines: { decodingMs: 300 } });
  await supervised.start();
  await vi.waitFor(() => expect(supervised.status().restarts).toBeGreaterThan(0), soon);
  expect(supervised.status().lastFailure).toBe("it made no progress for 0.3 s while decoding");
});

it("adds up the time without progress over pauses, and lets one that has nothing to do alone", async () => {
  let asked = 0;
  // Three looks at work, one at none.
  const stuck = async () => {
    return { phase: asked++ % 4 === 3 ? ("idle" as const) : ("decoding" as const), progress: 7 };
  };
  const working = async () => ({ ...(await stuck()), progress: asked });
  const idle = async () => ({ phase: "idle" as const, progress: 7 });
  const deadlines = { decodingMs: 300 };
  const [one, two, three] = [stuck, working, idle].map((health) =>
    child("", { health, deadlines }),
  );
  await Promise.all([one!.start(), two!.start(), three!.start()]);
  await vi.waitFor(() => expect(one!.status().restarts).toBeGreaterThan(0), soon);
  expect(one!.status().lastFailure).toBe("it made no progress for 0.3 s while decoding");
  await delay(600);
  expect([two!.status().restarts, three!.status().restarts]).toEqual([0, 0]);
});

it("brings a killed child back, and opens it to others after the hook only", async () => {
  const seen: boolean[] = [];
  let release: () => void = () => undefined;
  const supervised: Supervised = child("", {
    onReady: async () => {
      seen.push(canUse(supervised));
      supervised.rawBaseURL();
      if (seen.length > 1) await new Promise<void>((resolve) => (release = resolve));
    },
  });
  await supervised.start();
  const first = pidOf(supervised);
  process.kill(first, "SIGKILL");
  await vi.waitFor(() => expect(seen).toEqual([false, false]), soon);
  expect(canUse(supervised)).toBe(false);
  release();
  await vi.waitFor(() => expect(canUse(supervised)).toBe(true), soon);
  expect(pidOf(supervised)).not.toBe(first);
  expect(supervised.status()).toMatchObject({ state: "ready", restarts: 1 });
  expect(supervised.status().lastFailure).toContain("SIGKILL");
});

it("runs the hook again for a child that is doubted, and starts it anew where that fails", async () => {
  let runs = 0;
  let hook = (): Promise<void> => Promise.resolve();
  let lost = 0;
  const supervised = child("", { onReady: () => (runs++, hook()), onLost: () => void lost++ });
  await supervised.start();
  const first = pidOf(supervised);

  let release: () => void = () => undefined;
  hook = () => new Promise<void>((resolve) => (release = resolve));
  supervised.doubt();
  supervised.doubt();
  expect([runs, lost, canUse(supervised)]).toEqual([2, 1, false]);
  expect(supervised.status().state).toBe("restarting");
  release();
  await vi.waitFor(() => expect(canUse(supervised)).toBe(true), soon);
  expect(supervised.status()).toMatchObject({ state: "ready", pid: first, restarts: 0 });

  hook = () => (runs === 3 ? Promise.reject(new Error("it took nothing")) : Promise.resolve());
  supervised.doubt();
  await vi.waitFor(() => expect(canUse(supervised)).toBe(true), soon);
  expect([runs, alive(first)]).toEqual([4, false]);
  expect(supervised.status()).toMatchObject({ state: "ready", restarts: 1 });
});

function canUse(supervised: Supervised): boolean {
  try {
    return supervised.baseURL() !== "";
  } catch {
    return false;
  }
}

it("restarts a child that answers but makes no progress, and leaves one that does alone", async () => {
  const deadlines = { trainingMs: 1_000 };
  const [working, hanging] = [child("", { deadlines }), child("", { deadlines })];
  await Promise.all([working.start(), hanging.start()]);
  const pids = [pidOf(working), pidOf(hanging)];
  await ask(working, "/work");
  await ask(hanging, "/hang");
  await vi.waitFor(() => expect(hanging.status().restarts).toBe(1), soon);
  expect(hanging.status().lastFailure).toBe("it made no progress for 1 s while training");
  await delay(500);
  expect(pidOf(working)).toBe(pids[0]);
  expect(alive(pids[1] as number)).toBe(false);
});

it("restarts a child that is stopped in its tracks", async () => {
  const supervised = child("", { deadlines: { idleMs: 500 } });
  await supervised.start();
  const pid = pidOf(supervised);
  process.kill(pid, "SIGSTOP");
  await vi.waitFor(() => expect(supervised.status().restarts).toBeGreaterThan(0), soon);
  expect(alive(pid)).toBe(false);
});

it("gives up after five restarts that fail, with the reason", async () => {
  const onGivenUp = vi.fn<(error: Error) => void>();
  const supervised = child("dies-after-first", { onGivenUp });
  await supervised.start();
  process.kill(pidOf(supervised), "SIGKILL");
  await vi.waitFor(() => expect(supervised.status().state).toBe("failed"), soon);
  expect(onGivenUp).toHaveBeenCalledExactlyOnceWith(
    expect.objectContaining({
      message: expect.stringMatching(/given up after 5 restarts.*it ended with status 4/),
    }),
  );
  expect(supervised.status()).toMatchObject({ restarts: 5 });
  expect(supervised.status().lastFailure).toContain("it ended with status 4");
  expect(() => supervised.baseURL()).toThrow(
    /failed 5 times in a row .* remove the cause and start the server again\.$/,
  );
});

it("kills a child that does not obey, and what it had started", async () => {
  const stubborn = child("ignores-term", { stopTimeoutMs: 300 });
  await stubborn.start();
  const pid = pidOf(stubborn);
  await stubborn.stop();
  expect(alive(pid)).toBe(false);

  const parent = child("has-grandchild", {
    stopTimeoutMs: 300,
    env: { FAULT: "has-grandchild", MARK: join(folder, "grandchild") },
  });
  await parent.start();
  const grandchild = Number(readFileSync(join(folder, "grandchild"), "utf8"));
  expect(alive(grandchild)).toBe(true);
  await parent.stop();
  await vi.waitFor(() => expect(alive(grandchild)).toBe(false), soon);
});

it("can be stopped while it starts", async () => {
  const supervised = child("never-ready");
  const start = supervised.start();
  await Promise.all([
    expect(start).rejects.toThrow("stopping"),
    delay(100).then(() => supervised.stop()),
  ]);
  expect(supervised.status()).toMatchObject({ state: "stopped", pid: null });
});

it("leaves no child when the server is killed", async () => {
  const parentScript = fileURLToPath(new URL("../testing/supervised-parent.ts", import.meta.url));
  const parent = spawn(
    process.execPath,
    ["--import", "tsx", "--conditions=@hone/source", parentScript],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: parent.stdout }).once("line", resolve);
    parent.once("exit", () => reject(new Error("the parent ended")));
  });
  const { pid } = JSON.parse(line) as { pid: number };
  expect(alive(pid)).toBe(true);
  parent.kill("SIGKILL");
  await vi.waitFor(() => expect(alive(pid)).toBe(false), soon);
});

it.skipIf(process.platform !== "linux")("restarts a child past its memory", async () => {
  const supervised = child("", { maxMemoryBytes: 1024 * 1024 });
  await supervised.start();
  await vi.waitFor(() => {
    expect(supervised.status().restarts).toBeGreaterThan(0);
    expect(supervised.status().lastFailure).toMatch(/it held \d+ MiB, more than the 1 that it may/);
  }, soon);
  const roomy = child("", { maxMemoryBytes: 8 * 1024 ** 3 });
  await roomy.start();
  await delay(200);
  expect(roomy.status()).toMatchObject({ state: "ready", restarts: 0 });
});

it("starts nothing before what has to be done first is done, each time", async () => {
  const hook = vi.fn<(signal: AbortSignal) => Promise<void>>();
  hook.mockRejectedValueOnce(new Error("the card is full"));
  const supervised = child("", { beforeStart: hook });
  await expect(supervised.start()).rejects.toThrow("the card is full");
  expect(supervised.status()).toMatchObject({ state: "failed", pid: null });
  const next = child("", { beforeStart: hook });
  await next.start();
  // A start that is refused is tried again, as any other that fails.
  hook.mockRejectedValueOnce(new Error("not free yet"));
  process.kill(pidOf(next), "SIGKILL");
  await vi.waitFor(
    () => expect(next.status()).toMatchObject({ state: "ready", restarts: 2 }),
    soon,
  );
  expect(hook).toHaveBeenCalledTimes(4);
  expect(hook).toHaveBeenLastCalledWith(expect.any(AbortSignal));
});
