import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import Database from "libsql";
import { isComplete, markComplete, type EnvironmentPlan } from "./environment.ts";

export interface SetupOptions {
  /** Gets a line of progress. */
  say: (line: string) => void;
  /** What is being done and how far it is, several times a second; null when it is over. */
  show?: ((state: string | null) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Added to the environment of what is run. */
  env?: Readonly<Record<string, string>> | undefined;
  /** Resolves to what is wrong with a complete environment. @default finds nothing */
  verify?: ((plan: EnvironmentPlan) => Promise<string[]>) | undefined;
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
  let possible: EnvironmentPlan[] = [];
  for await (const plan of plans) {
    possible.push(plan);
    if (!isComplete(plan)) continue;
    // This one exists, so it is the one to repair.
    possible = [plan];
    break;
  }
  const failures: string[] = [];
  for (const plan of possible) {
    const release = await lock(plan, options);
    try {
      // Another setup may have made it while this one waited.
      if (isComplete(plan)) {
        const problems = (await options.verify?.(plan)) ?? [];
        if (problems.length === 0) return plan;
        options.say(
          `The ${plan.name} environment is broken: ${listed(problems)}. It is made again.`,
        );
      }
      const startedAt = performance.now();
      const failure = await makeEmpty(plan, options);
      if (failure === null) {
        await fill(plan);
        const problems = (await options.verify?.(plan)) ?? [];
        if (problems.length > 0) {
          throw new HoneError(
            `The ${plan.name} environment was made and does not work: ${listed(problems)}. Remove ${plan.dir} and pip's cache (pip cache purge), and run setup again.`,
            { code: "invalid_config" },
          );
        }
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

/** Resolves to the reason why it failed, or to null. */
async function makeEmpty(plan: EnvironmentPlan, options: SetupOptions): Promise<string | null> {
  const { version, executable } = plan.interpreter;
  // An interrupted setup may have left a part of it.
  rmSync(plan.dir, { recursive: true, force: true });
  options.say(`Python ${version}: making the ${plan.name} environment in ${plan.dir}`);
  const failure = await failureOf(executable, ["-m", "venv", plan.dir], options);
  if (failure !== null) rmSync(plan.dir, { recursive: true, force: true });
  return failure;
}

/** Installs into the environment. */
export function pip(plan: EnvironmentPlan, args: string[], options: SetupOptions): Promise<void> {
  return runInside(plan, ["-m", "pip", "install", ...pipQuietly, ...args], options);
}

export const pipQuietly: readonly string[] = [
  "--no-input",
  "--disable-pip-version-check",
  "--quiet",
];

/** Runs the environment's Python to its end; what it wrote is the reason if it fails. */
export async function runInside(
  plan: EnvironmentPlan,
  args: string[],
  options: SetupOptions,
): Promise<void> {
  const failure = await failureOf(plan.python, args, options);
  if (failure === null) return;
  throw new HoneError(`Setting up the ${plan.name} environment failed: ${failure}`, {
    code: "invalid_config",
  });
}

/** Variables of the caller's own environment would lead pip and venv astray. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PYTHONPATH: "", PYTHONHOME: undefined, VIRTUAL_ENV: undefined };
}

const shownLines = 8;
const shownProblems = 5;

/** Makes one line of a text of several. */
export function listed(problems: readonly string[]): string {
  const more = problems.length - shownProblems;
  const shown = problems.slice(0, shownProblems).join("; ");
  return more > 0 ? `${shown}; and ${more} more` : shown;
}

/** Resolves to how the command failed and what it wrote last, to null if it succeeded. */
export async function failureOf(
  command: string,
  args: string[],
  { signal, env }: SetupOptions,
): Promise<string | null> {
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    signal,
    env: { ...cleanEnvironment(), ...env },
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
 * One setup at a time per environment or model. The lock is the kernel's (an open exclusive transaction), so it
 * ends with its holder however that dies.
 */
export async function lock({ dir }: { dir: string }, options: SetupOptions): Promise<() => void> {
  makeFolder(dirname(dir));
  const database = new Database(`${dir}.lock`);
  let said = false;
  for (;;) {
    try {
      database.exec("BEGIN EXCLUSIVE");
      return () => database.close();
    } catch (error) {
      if (!/locked|busy/i.test(messageOf(error))) throw error;
      if (!said) options.say("Another setup is making this: waiting for it …");
      said = true;
      await delay(300, undefined, { signal: options.signal });
    }
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function seconds(startedAt: number): string {
  return ((performance.now() - startedAt) / 1000).toFixed(0);
}
