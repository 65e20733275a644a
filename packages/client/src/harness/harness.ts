import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { RolloutModel } from "../rollouts/rollout-model.ts";
import { readFolder } from "./folder.ts";

export interface HarnessOptions {
  /** The program and its arguments. It is looked for in PATH. */
  command: readonly [string, ...string[]];
  /** Texts that stand in its folder at the start, by their path within it. */
  files?: Readonly<Record<string, string>> | undefined;
  /** Variables beside those of the connection. @default none */
  env?: Readonly<Record<string, string>> | undefined;
  /** What it reads from its standard input. @default nothing */
  input?: string | undefined;
}

/** What of a rollout's model is used. */
type Asked = Pick<RolloutModel, "signal" | "connection" | "anthropic">;

export interface HarnessRun {
  /** Null: a signal ended it. */
  exitCode: number | null;
  /** The last 64 KiB of what it wrote. */
  stdout: string;
  stderr: string;
  /** Texts of its folder in the end, by their path: fit for a trajectory's `metadata`. */
  files: Record<string, string>;
  /** Files that are not in `files`, each as `path (why)`. */
  leftOut: string[];
}

/** Of this process's environment. Everything else, keys above all, stays here. */
const passedOn = ["PATH", "LANG", "LC_ALL", "TZ"];
const keptBytes = 64 * 1024;
const graceMs = 2_000;

/**
 * The program leads a group of processes, with one that waits until this process is gone, however it went, and then
 * kills the group.
 */
const launch = '( read _ <&3; kill -KILL 0 ) </dev/null >/dev/null 2>&1 & exec "$@" 3<&-';

/**
 * Runs an agent that cannot be edited, such as a coding assistant, as a program of its own: it works in a new folder
 * and asks the rollout's model. `OPENAI_BASE_URL`, `OPENAI_API_KEY`, `OPENAI_MODEL` and the same with `ANTHROPIC_` say
 * where it is; `HOME` and `TMPDIR` are new too. When it ends, what it had started is killed and its folders are
 * removed; so they are when the rollout is aborted, and then the promise rejects with the reason.
 *
 * The program gets the server's key and runs with your rights. Throws `invalid_config` if it cannot be started.
 */
export async function runHarness(model: Asked, options: HarnessOptions): Promise<HarnessRun> {
  if (process.platform === "win32") {
    throw invalid("runHarness needs process groups: run it on Linux or macOS, or in WSL.");
  }
  model.signal.throwIfAborted();
  const root = await mkdtemp(join(tmpdir(), "hone-harness-"));
  try {
    const [folder, home, temporary] = ["folder", "home", "tmp"].map((name) => join(root, name)) as [
      string,
      string,
      string,
    ];
    for (const one of [folder, home, temporary]) await mkdir(one);
    for (const [path, text] of Object.entries(options.files ?? {})) {
      await writeText(folder, path, text);
    }
    const ended = await runToEnd(model.signal, options, {
      cwd: folder,
      env: { ...environment(model), HOME: home, TMPDIR: temporary, ...options.env },
    });
    return { ...ended, ...(await readFolder(folder)) };
  } finally {
    await removeAll(root);
  }
}

/** Also what the program has made read-only, as caches of packages are. */
async function removeAll(root: string): Promise<void> {
  const remove = () => rm(root, { recursive: true, force: true, maxRetries: 3 });
  await remove().catch(async () => {
    await openFolders(root);
    await remove();
  });
}

/** A removal that has failed at one place may still be going on at others: what is gone meanwhile is no error. */
async function openFolders(folder: string): Promise<void> {
  try {
    await chmod(folder, 0o700);
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) await openFolders(join(folder, entry.name));
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function environment(model: Asked): Record<string, string> {
  const openai = model.connection();
  const anthropic = model.anthropic();
  const own = passedOn.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  return {
    ...(Object.fromEntries(own) as Record<string, string>),
    OPENAI_BASE_URL: openai.baseURL,
    OPENAI_API_KEY: openai.apiKey,
    OPENAI_MODEL: openai.model,
    ANTHROPIC_BASE_URL: anthropic.baseURL,
    ANTHROPIC_API_KEY: anthropic.apiKey,
    ANTHROPIC_MODEL: anthropic.model,
  };
}

async function writeText(folder: string, path: string, text: string): Promise<void> {
  const file = join(folder, path);
  if (/^(\.\.)?(\/|$)/.test(relative(folder, file))) {
    throw invalid(`files has "${path}", which is outside of the folder. Give paths within it.`);
  }
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

async function runToEnd(
  signal: AbortSignal,
  { command, input }: HarnessOptions,
  { cwd, env }: { cwd: string; env: Record<string, string> },
): Promise<Omit<HarnessRun, "files" | "leftOut">> {
  // The rollout may have ended while the folder was made.
  signal.throwIfAborted();
  const child = spawn("/bin/sh", ["-c", launch, "sh", ...command], {
    ...{ cwd, env, detached: true },
    stdio: ["pipe", "pipe", "pipe", "pipe"],
  });
  const stdout = tailOf(child.stdout);
  const stderr = tailOf(child.stderr);
  // A program that does not read its input is no error.
  child.stdin.on("error", () => {}).end(input ?? "");
  let killing: NodeJS.Timeout | undefined;
  const abort = (): void => {
    signalGroup(child, "SIGTERM");
    killing = setTimeout(() => signalGroup(child, "SIGKILL"), graceMs);
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    const [exitCode] = (await once(child, "exit")) as [number | null];
    const closed = once(child, "close");
    signalGroup(child, "SIGKILL");
    // One that left the group may hold the pipes open: it is not waited for.
    await Promise.race([closed, delay(1_000, undefined, { ref: false })]);
    signal.throwIfAborted();
    // The shell's own words: it found no program, or may not run it.
    if ((exitCode === 126 || exitCode === 127) && /^sh: (line )?\d+: /.test(stderr())) {
      throw invalid(
        `${command[0]} could not be started: ${stderr().trim()}. Install it, or name its path.`,
      );
    }
    return { exitCode, stdout: stdout(), stderr: stderr() };
  } finally {
    clearTimeout(killing);
    signal.removeEventListener("abort", abort);
    for (const stream of child.stdio) stream?.destroy();
  }
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Reads a stream to its end and keeps the last of it. */
function tailOf(stream: NodeJS.ReadableStream): () => string {
  let kept = Buffer.alloc(0);
  stream.on("data", (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-keptBytes);
  });
  stream.on("error", () => {});
  return () => kept.toString("utf8");
}

const invalid = (message: string): HoneError => new HoneError(message, { code: "invalid_config" });
