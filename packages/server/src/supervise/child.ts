import { randomBytes, randomUUID } from "node:crypto";
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { createWriteStream, mkdirSync, renameSync, statSync, type WriteStream } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError, type ErrorCode } from "@hone/core";
import type { Logger } from "pino";
import { z } from "zod";
import { healthSchema, type Health } from "./health.ts";

interface ChildCommand {
  /** For messages: "renderer", "worker". */
  name: string;
  command: string;
  /** A function is asked anew at each start. */
  args: readonly string[] | (() => readonly string[]);
  /** Added to this process's environment; null removes a variable. */
  env?: Readonly<Record<string, string | null>> | undefined;
  cwd?: string | undefined;
}

export interface ChildOptions extends ChildCommand {
  log: Logger;
  /** Which error says that this child is not there. */
  unavailable: ErrorCode;
  /** To the ready line, from the start or from the last line in which `progress` has changed. */
  readyTimeoutMs: number;
  /** Hears what a child tells of a slow start before it is ready. */
  onStarting?: ((health: Health) => void) | undefined;
  /** Hears of the process as soon as there is one. */
  onSpawn?: ((pid: number) => void) | undefined;
  /** Aborting it gives up the start. A child that is ready stays. */
  signal?: AbortSignal | undefined;
  /** How long the child may take to end after SIGTERM, before it gets SIGKILL. */
  stopTimeoutMs?: number | undefined;
  /** Gets what the child writes on standard error. It is begun anew where it has grown large. */
  logFile?: string | undefined;
}

/** One run of a child process that has said it is ready. */
export interface Child {
  readonly pid: number;
  readonly baseURL: string;
  /** The key of this run. The child accepts no other. */
  readonly key: string;
  readonly boot: string;
  /** Resolves when the process has ended, to a sentence that says how. It never rejects. */
  readonly exited: Promise<string>;
  /** SIGTERM to its process group, SIGKILL to what is left after the limit. */
  stop(): Promise<void>;
  /** SIGKILL to its process group, for a child that does not answer. */
  kill(): Promise<void>;
}

const readyLine = z.object({
  ready: z.literal(true),
  port: z.int().min(1).max(65535),
  boot: z.string(),
});
const startingLine = healthSchema.pick({ phase: true, progress: true, boot: true });
const lineSchema = z.union([readyLine, startingLine]);

const tailLines = 40;
const shownLines = 6;
const maxLineLength = 4_000;

/**
 * Starts a process of our own and waits for its ready line. It leads a process group, so that a signal
 * reaches whatever it starts in turn, and its standard input stays open as long as this process lives:
 * the child ends at end of file, however we end.
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const { name, log } = options;
  const key = randomBytes(32).toString("base64url");
  const boot = randomUUID();
  const args = typeof options.args === "function" ? options.args() : options.args;
  const { logFile } = options;
  // Before there is a process that nobody would hold if this throws.
  const file = logFile === undefined ? null : openLogFile(logFile, log);
  const process_ = spawn(options.command, args, {
    cwd: options.cwd,
    env: environment(options.env, { HONE_WORKER_KEY: key, HONE_BOOT_ID: boot }),
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  if (process_.pid !== undefined) options.onSpawn?.(process_.pid);
  const tail = keepTail(process_, log.child({ child: name }), file);
  const exited = exitOf(process_);
  // `exited` already reports a child that died. Its broken pipe is not a second fault.
  process_.stdin.on("error", () => undefined);

  const stopWith = async (first: NodeJS.Signals): Promise<void> => {
    signalGroup(process_.pid, first);
    const limit = new AbortController();
    const late = delay(options.stopTimeoutMs ?? 5_000, true, { signal: limit.signal, ref: false });
    const timedOut = await Promise.race([exited.then(() => false), late.catch(() => false)]);
    limit.abort();
    if (timedOut) log.warn({ child: name, pid: process_.pid }, "did not end in time, is killed");
    // The leader may have ended while processes that it started are still in its group.
    signalGroup(process_.pid, "SIGKILL");
    await exited;
  };

  const failed = (what: string, cause?: unknown): HoneError => {
    const where = logFile === undefined ? "" : ` All of it: ${logFile}`;
    return new HoneError(`The ${name} did not start: ${what}.${lastWords(tail())}${where}`, {
      code: options.unavailable,
      cause,
    });
  };

  const limit = new AbortController();
  const givenUp = new Promise<never>((_, reject) => {
    const giveUp = (): void => reject(failed("the server is stopping"));
    if (options.signal?.aborted) giveUp();
    options.signal?.addEventListener("abort", giveUp, { once: true, signal: limit.signal });
  });
  let onStarting: (health: Health) => void = () => undefined;
  const standsStill = new Promise<never>((_, reject) => {
    let seen: Health | null = null;
    const limitMs = options.readyTimeoutMs;
    const timer = setTimeout(() => {
      const how = seen ? `made no progress for ${limitMs / 1000} s while ${seen.phase}` : null;
      reject(failed(`it ${how ?? `was not ready after ${limitMs / 1000} s`}`));
    }, limitMs);
    limit.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
    onStarting = (now) => {
      if (now.progress !== seen?.progress || now.phase !== seen.phase) timer.refresh();
      seen = now;
      options.onStarting?.(now);
    };
  });
  try {
    const ready = await Promise.race([
      readyLineOf(process_, boot, (now) => onStarting(now)),
      exited.then((how) => Promise.reject(failed(how))),
      givenUp,
      standsStill,
    ]);
    log.debug({ child: name, pid: process_.pid, port: ready.port }, "is ready");
    return {
      pid: process_.pid as number,
      baseURL: `http://127.0.0.1:${ready.port}`,
      key,
      boot,
      exited: exited.then((how) => `${how}.${lastWords(tail())}`.replace(/\.$/, "")),
      stop: () => stopWith("SIGTERM"),
      kill: () => stopWith("SIGKILL"),
    };
  } catch (error) {
    await stopWith("SIGKILL");
    throw HoneError.isInstance(error) ? error : failed("its ready line is wrong", error);
  } finally {
    limit.abort();
  }
}

const reported = z.object({ error: z.object({ message: z.string() }) });

/** Why it ended, in its own words: the error that it reported, the end of a traceback, or its last lines. */
function lastWords(lines: readonly string[]): string {
  const last = lines.at(-1);
  if (last === undefined) return "";
  if (last.startsWith('{"error"')) {
    try {
      return ` ${reported.parse(JSON.parse(last)).error.message.replaceAll(/\s*\n\s*/g, " ")}`;
    } catch {
      // The line is cut off or has another shape, so it is shown as it is.
    }
  }
  const named = /^[a-z_]+: (.+)$/.exec(last)?.[1];
  if (named) return ` ${named}`;
  if (/^[\w.]+(Error|Exception): /.test(last)) return ` ${last}`;
  return ` Its last lines: ${lines.slice(-shownLines).join(" | ")}`;
}

type Piped = ChildProcessByStdio<Writable, Readable, Readable>;

/** This process's own rights: those of its clients, of its engines and in its bucket. No child needs them. */
const secrets = [
  ...["HONE_API_KEY", "HONE_ENGINE_KEY", "HONE_JOIN_TOKEN"],
  ...["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
];

function environment(
  changes: ChildOptions["env"] = {},
  own: Record<string, string>,
): NodeJS.ProcessEnv {
  const merged: NodeJS.ProcessEnv = { ...process.env };
  for (const variable of secrets) delete merged[variable];
  for (const [variable, value] of Object.entries(changes)) {
    if (value === null) delete merged[variable];
    else merged[variable] = value;
  }
  return { ...merged, ...own };
}

function keepTail(process_: Piped, log: Logger, file: WriteStream | null): () => string[] {
  const lines: string[] = [];
  const reader = createInterface({ input: process_.stderr });
  reader.once("close", () => file?.end());
  reader.on("line", (line) => {
    const text = line.trimEnd().slice(0, maxLineLength);
    file?.write(`${text}\n`);
    if (!text) return;
    log.debug(text);
    lines.push(text);
    if (lines.length > tailLines) lines.shift();
  });
  return () => [...lines];
}

/** @unit bytes */
const largestLogFile = 16 * 1024 * 1024;

/** Without a log the child runs all the same. */
function openLogFile(path: string, log: Logger): WriteStream | null {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    if (size > largestLogFile) renameSync(path, `${path}.old`);
  } catch (error) {
    log.warn({ path, err: error }, "a child's log cannot be written");
    return null;
  }
  const file = createWriteStream(path, { flags: "a", mode: 0o600 });
  // A full disk must not end the server.
  file.on("error", (error) => log.warn({ path, err: error }, "a child's log cannot be written"));
  return file;
}

function exitOf(process_: Piped): Promise<string> {
  return new Promise((resolve) => {
    process_.once("error", (error) => resolve(`it could not be run (${error.message})`));
    // "close" comes after the last line of standard error, "exit" may come before it. A grandchild
    // that holds the pipe open must not keep us waiting, though.
    process_.once("exit", (code, signal) => {
      const how = signal ? `it was ended by ${signal}` : `it ended with status ${code}`;
      // Where this thread itself was late, what the pipe holds is read before the wait counts as over.
      const late = setTimeout(() => setImmediate(() => setImmediate(() => resolve(how))), 250);
      process_.once("close", () => {
        clearTimeout(late);
        resolve(how);
      });
    });
  });
}

async function readyLineOf(
  process_: Piped,
  boot: string,
  onStarting: (health: Health) => void,
): Promise<z.infer<typeof readyLine>> {
  return new Promise((resolve, reject) => {
    createInterface({ input: process_.stdout }).on("line", (line) => {
      // Libraries print to standard output as well; only an object can be a line of the contract.
      if (!line.startsWith("{")) return;
      try {
        const parsed = lineSchema.parse(JSON.parse(line));
        if (parsed.boot !== boot) throw new Error("the boot id is not the one it was given");
        if ("ready" in parsed) resolve(parsed);
        else onStarting({ phase: parsed.phase, progress: parsed.progress });
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
