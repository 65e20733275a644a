import { spawn } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import Database from "libsql";
import { isComplete, markComplete, type EnvironmentPlan } from "./environment.ts";

export interface SetupOptions {
  /** A line of progress. */
  say: (line: string) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Resolves to the first of the planned environments that is complete. If none is, makes one: of the plans,
 * each of which stands for another Python, the first whose Python can make a virtual environment.
 * `fill` installs what belongs in it.
 */
export async function makeEnvironment(
  plans: AsyncIterable<EnvironmentPlan> | Iterable<EnvironmentPlan>,
  fill: (plan: EnvironmentPlan) => Promise<void>,
  options: SetupOptions,
): Promise<EnvironmentPlan> {
  const possible: EnvironmentPlan[] = [];
  for await (const plan of plans) {
    if (isComplete(plan)) return plan;
    possible.push(plan);
  }
  const failures: string[] = [];
  for (const plan of possible) {
    const release = await lock(plan, options);
    try {
      // Another setup may have made it while this one waited.
      if (isComplete(plan)) return plan;
      const startedAt = performance.now();
      const failure = await makeEmpty(plan, options);
      if (failure === null) {
        await fill(plan);
        markComplete(plan);
        options.say(`The ${plan.name} environment is ready (${seconds(startedAt)} s).`);
        return plan;
      }
      options.say(`${plan.interpreter.executable} cannot make a virtual environment.`);
      failures.push(`${plan.interpreter.executable}: ${failure}`);
    } finally {
      release();
    }
  }
  throw new HoneError(
    `No Python here can make a virtual environment. On Debian and Ubuntu install python3-venv; elsewhere install Python 3.11 with its \`venv\` and \`ensurepip\` modules.\n${failures.join("\n")}`,
    { code: "invalid_config" },
  );
}

/** Resolves to why it failed, null if it did not. */
async function makeEmpty(plan: EnvironmentPlan, options: SetupOptions): Promise<string | null> {
  const { version, executable } = plan.interpreter;
  // What an interrupted setup left.
  rmSync(plan.dir, { recursive: true, force: true });
  options.say(`Python ${version}: making the ${plan.name} environment in ${plan.dir}`);
  const failure = await attempt(executable, ["-m", "venv", plan.dir], options);
  if (failure !== null) rmSync(plan.dir, { recursive: true, force: true });
  return failure;
}

/**
 * On Linux the plain wheel of torch brings CUDA, gigabytes of it. The CPU build is not on every index,
 * so it is tried first and its absence said.
 */
export async function installTorch(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  const { version, build } = plan.torch;
  const index = process.env["HONE_TORCH_INDEX"];
  const from = index ? ["--index-url", index] : [];
  if (build === "cpu") {
    options.say(`Downloading and installing torch ${version}, CPU build (about 200 MB) …`);
    try {
      await pip(plan, [...from, `torch==${version}+cpu`], options);
      return;
    } catch (error) {
      if (!/no matching distribution|could not find a version/i.test(messageOf(error))) throw error;
      options.say(
        "Your package index has no CPU build of torch: installing the default one, which brings CUDA (about 3 GB). To avoid it, set HONE_TORCH_INDEX to an index that has the CPU build.",
      );
    }
  } else options.say(`Downloading and installing torch ${version}, the default build …`);
  await pip(plan, [...from, `torch==${version}`], options);
}

/** Installs into the environment. */
export function pip(plan: EnvironmentPlan, args: string[], options: SetupOptions): Promise<void> {
  const quiet = ["--no-input", "--disable-pip-version-check", "--quiet"];
  return runInside(plan, ["-m", "pip", "install", ...quiet, ...args], options);
}

/** Runs the environment's Python to its end; what it wrote is the reason if it fails. */
export async function runInside(
  plan: EnvironmentPlan,
  args: string[],
  options: SetupOptions,
): Promise<void> {
  const failure = await attempt(plan.python, args, options);
  if (failure === null) return;
  throw new HoneError(`Setting up the ${plan.name} environment failed: ${failure}`, {
    code: "invalid_config",
  });
}

const shownLines = 8;

/** Resolves to how the command failed and what it wrote last, to null if it succeeded. */
async function attempt(
  command: string,
  args: string[],
  { signal }: SetupOptions,
): Promise<string | null> {
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    signal,
    // Variables of the caller's own environment would lead pip and venv astray.
    env: { ...process.env, PYTHONPATH: "", PYTHONHOME: undefined, VIRTUAL_ENV: undefined },
  });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      if (/^WARNING|^\s*$/.test(line)) return;
      lines.push(line);
    });
  }
  const how = await new Promise<string | null>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, killer) =>
      resolve(code === 0 ? null : (killer ?? `status ${code}`)),
    );
  });
  signal?.throwIfAborted();
  return how === null ? null : [how, ...lines.slice(-shownLines)].join("\n");
}

/**
 * One setup at a time per environment. The lock is the kernel's (an open exclusive transaction), so it
 * ends with its holder however that dies.
 */
async function lock(plan: EnvironmentPlan, options: SetupOptions): Promise<() => void> {
  mkdirSync(dirname(plan.dir), { recursive: true });
  const database = new Database(`${plan.dir}.lock`);
  let said = false;
  for (;;) {
    try {
      database.exec("BEGIN EXCLUSIVE");
      return () => database.close();
    } catch (error) {
      if (!/locked|busy/i.test(messageOf(error))) throw error;
      if (!said) options.say("Another setup is making this environment: waiting for it …");
      said = true;
      await delay(300, undefined, { signal: options.signal });
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function seconds(startedAt: number): string {
  return ((performance.now() - startedAt) / 1000).toFixed(0);
}
