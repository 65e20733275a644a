import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const cli = at("../../packages/server/src/cli.ts");
const base = at("../../models/hone-2048-1m");
const root = at("../..");

/** Limits for what hangs: several servers start at once, on a machine that may be busy. */
const startLimitMs = 240_000;
const stopLimitMs = 60_000;
const answerLimitMs = 30_000;

export type ProcessName = "server" | "worker" | "renderer";

export interface ServerProcess {
  readonly url: string;
  readonly key: string;
  readonly pid: number;
  /** The renderer's and the worker's pid, as the server knows them now; null while there is none. */
  pidOf(name: ProcessName): Promise<number | null>;
  health(): Promise<Health>;
  readonly ended: Promise<void>;
  /** As an operator stops it; by force where it does not end. */
  stop(): Promise<void>;
}

interface Health {
  status: string;
  components: Record<string, { pid: number | null; restarts: number; state: string }>;
}

export interface ServerProcessOptions {
  dataDir: string;
  port: number;
  /** A variable that every descendant inherits tells which processes are left. */
  mark: string;
  env?: Record<string, string> | undefined;
  args?: readonly string[] | undefined;
}

// Whoever ends in the middle of a trial takes its servers with it; their children end by themselves.
const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** `hone serve` as a process of its own, with its real children. Resolves when it serves. */
export async function startServerProcess(options: ServerProcessOptions): Promise<ServerProcess> {
  const { dataDir, port, mark } = options;
  const log = openSync(`${dataDir}.log`, "a");
  const serve = ["serve", "--base", base, "--port", String(port), "--data-dir", dataDir];
  const child = spawn(
    process.execPath,
    ["--import", "tsx", "--conditions=@hone/source", cli, ...serve, ...(options.args ?? [])],
    {
      cwd: root,
      stdio: ["ignore", "pipe", log],
      env: {
        ...process.env,
        HONE_API_KEY: "",
        HONE_URL: "",
        HF_HUB_OFFLINE: "1",
        OMP_NUM_THREADS: "1",
        HONE_TEST_MARK: mark,
        ...options.env,
      },
    },
  );
  closeSync(log);
  running.add(child);
  const ended = once(child, "exit").then(() => void running.delete(child));
  const variables = await announced(child, ended, `${dataDir}.log`);
  const url = variables.get("HONE_URL") ?? "";
  const key = variables.get("HONE_API_KEY") ?? "";

  async function health(): Promise<Health> {
    const response = await fetch(`${url}/health`, {
      headers: { authorization: `Bearer ${key}` },
      signal: AbortSignal.timeout(answerLimitMs),
    });
    return (await response.json()) as Health;
  }

  return {
    url,
    key,
    pid: child.pid ?? 0,
    ended,
    health,
    async pidOf(name) {
      if (name === "server") return child.pid ?? null;
      return (await health()).components[name]?.pid ?? null;
    },
    async stop() {
      child.kill("SIGTERM");
      const late = delay(stopLimitMs, "late", { ref: false });
      if ((await Promise.race([ended, late])) === "late") child.kill("SIGKILL");
      await ended;
    },
  };
}

async function announced(
  child: ChildProcess,
  ended: Promise<void>,
  log: string,
): Promise<Map<string, string>> {
  const variables = new Map<string, string>();
  const ready = new Promise<boolean>((resolve) => {
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, name, value] = /^export (HONE_\w+)=(.*)$/.exec(line) ?? [];
      if (name) variables.set(name, value ?? "");
      if (variables.size === 2) resolve(true);
    });
  });
  const late = delay(startLimitMs, false, { ref: false });
  if (await Promise.race([ready, ended.then(() => false), late])) return variables;
  child.kill("SIGKILL");
  await ended;
  throw new Error(`the server did not come to serve: ${readFileSync(log, "utf8").slice(-2_000)}`);
}

/** Processes that inherited the mark. */
export function processesOf(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, "utf8").includes(`HONE_TEST_MARK=${mark}`);
      } catch {
        return false;
      }
    });
}

/** Given by this process, which may have several servers at once. */
const given = new Set<number>();

/**
 * A port for a server that may be killed and started again on it. None of those that systems hand out for
 * connections: while no server has it, nobody else gets it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (given.has(port)) continue;
    const probe = createServer();
    const free = await new Promise<boolean>((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    probe.close();
    await once(probe, "close");
    given.add(port);
    return port;
  }
}
