// Steps and servers that a script starts. Each leads a process group of its own, so that Ctrl-C reaches
// it through this process only, once, and so that ending it ends what it started in turn.
import { spawn } from "node:child_process";
import process from "node:process";

/** @typedef {{child: import("node:child_process").ChildProcess, ended: Promise<number>}} Started */

/** @type {Set<Started>} */
const running = new Set();
let interrupted = false;

/**
 * Starts a process that is ended with this one. `ended` resolves to its exit status.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {import("node:child_process").SpawnOptions} options
 * @returns {Started}
 */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: "inherit", ...options, detached: true });
  /** @type {Promise<number>} */
  const exited = new Promise((resolve) => {
    child.once("error", (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(127);
    });
    child.once("exit", (code, signal) => resolve(code ?? (signal ? 130 : 1)));
  });
  const entry = { child, ended: exited.finally(() => running.delete(entry)) };
  running.add(entry);
  return entry;
}

/** Runs a step to its end. Resolves to its exit status and, where it is piped, what it printed. */
export async function run(command, args, options = {}) {
  const entry = start(command, args, options);
  let stdout = "";
  entry.child.stdout?.setEncoding("utf8").on("data", (text) => (stdout += text));
  const status = await entry.ended;
  // The handler ends this process; that a step was cut short is no failure to report.
  if (interrupted) return new Promise(() => undefined);
  return { status, stdout };
}

/**
 * Ends a process and its group: first as asked, by force after the limit.
 *
 * @param {Started} entry
 * @param {{signal?: NodeJS.Signals, limitMs?: number}} options
 */
export async function end(entry, { signal = "SIGTERM", limitMs = 5_000 } = {}) {
  send(entry, signal);
  const late = new Promise((resolve) => setTimeout(resolve, limitMs, "late").unref());
  await Promise.race([entry.ended, late]);
  // The leader may have ended before what it had started.
  send(entry, "SIGKILL");
  await entry.ended;
}

export async function endAll() {
  await Promise.all([...running].map((entry) => end(entry)));
}

/**
 * @param {Started} entry
 * @param {NodeJS.Signals} signal
 */
export function send(entry, signal) {
  try {
    if (entry.child.pid !== undefined) process.kill(-entry.child.pid, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

/** Runs the handler at Ctrl-C, at SIGTERM, when the terminal closes, and when whoever started us is gone. */
export function onInterrupt(handler) {
  const interrupt = (signal) => {
    interrupted = true;
    handler(signal);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => interrupt(signal));
  }
  // A shell between npm and us may die of the signal without passing it on.
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    interrupt("SIGINT");
  }, 250);
  watch.unref();
}
