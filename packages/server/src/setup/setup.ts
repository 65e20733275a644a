import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import Database from "libsql";
import {
  clear,
  isComplete,
  markComplete,
  planEnvironment,
  torchVersion,
  type EnvironmentName,
  type EnvironmentPlan,
} from "./environment.ts";

export interface SetupOptions {
  /** A line of progress. */
  say: (line: string) => void;
  signal?: AbortSignal | undefined;
}

/** Makes the Python environment if it is not there. Resolves to its interpreter. */
export async function setUp(name: EnvironmentName, options: SetupOptions): Promise<string> {
  const named = process.env["HONE_PYTHON"];
  if (named) {
    options.say(`Python: HONE_PYTHON (${named}), used as it is.`);
    return named;
  }
  const plan = await planEnvironment(name);
  const base = name === "test" ? await setUp("worker", options) : null;
  if (isComplete(plan)) return plan.python;
  const release = await lock(plan, options);
  try {
    // Another setup may have made it while this one waited.
    if (!isComplete(plan)) await build(plan, base, options);
  } finally {
    release();
  }
  return plan.python;
}

async function build(
  plan: EnvironmentPlan,
  base: string | null,
  options: SetupOptions,
): Promise<void> {
  const startedAt = performance.now();
  const { say } = options;
  clear(plan);
  say(`Python ${plan.interpreter.version}: making the ${plan.name} environment in ${plan.dir}`);
  await run(plan, plan.interpreter.executable, ["-m", "venv", plan.dir], options).catch(
    (cause: unknown) => {
      throw new HoneError(
        `${plan.interpreter.executable} could not make a virtual environment (${messageOf(cause)}). On Debian and Ubuntu install python3-venv.`,
        { code: "invalid_config", cause },
      );
    },
  );
  if (base) {
    seePackagesOf(plan, base);
    // Python 3.11 brings an old one, which would hide the other environment's.
    await run(plan, plan.python, ["-m", "pip", "uninstall", "-q", "-y", "setuptools"], options);
  }
  say(`Downloading and installing ${plan.requirements.split("/").slice(-2).join("/")} …`);
  await pip(plan, ["--no-deps", "--require-hashes", "-r", plan.requirements], options);
  if (!base) await installTorch(plan, options);
  markComplete(plan);
  say(`The ${plan.name} environment is ready (${seconds(startedAt)} s).`);
}

/**
 * On Linux the plain wheel of torch brings CUDA, gigabytes of it. The CPU build is not on every index,
 * so it is tried first and its absence said.
 */
async function installTorch(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  const index = process.env["HONE_TORCH_INDEX"];
  const from = index ? ["--index-url", index] : [];
  if (plan.torch === "cpu") {
    options.say(`Downloading and installing torch ${torchVersion}, CPU build (about 200 MB) …`);
    try {
      await pip(plan, [...from, `torch==${torchVersion}+cpu`], options);
      return;
    } catch (error) {
      if (!/no matching distribution|could not find a version/i.test(messageOf(error))) throw error;
      options.say(
        "Your package index has no CPU build of torch: installing the default one, which brings CUDA (about 3 GB). To avoid it, set HONE_TORCH_INDEX to an index that has the CPU build.",
      );
    }
  } else options.say(`Downloading and installing torch ${torchVersion}, the default build …`);
  await pip(plan, [...from, `torch==${torchVersion}`], options);
}

/** Names the other environment's packages in this one's path file. */
function seePackagesOf(plan: EnvironmentPlan, basePython: string): void {
  const [major, minor] = plan.interpreter.version.split(".");
  const site = (dir: string): string =>
    join(dir, "lib", `python${major}.${minor}`, "site-packages");
  const other = site(dirname(dirname(basePython)));
  writeFileSync(join(site(plan.dir), "hone-worker-environment.pth"), `${other}\n`);
}

function pip(plan: EnvironmentPlan, args: string[], options: SetupOptions): Promise<void> {
  return run(
    plan,
    plan.python,
    ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet", ...args],
    options,
  );
}

const shownLines = 8;

/** Runs a step to its end; what it wrote is the reason if it fails. */
async function run(
  plan: EnvironmentPlan,
  command: string,
  args: string[],
  options: SetupOptions,
): Promise<void> {
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    signal: options.signal,
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
    child.once("close", (code, signal) =>
      resolve(code === 0 ? null : (signal ?? `status ${code}`)),
    );
  });
  if (how === null) return;
  const said = lines.slice(-shownLines).join("\n");
  throw new HoneError(
    `Setting up the ${plan.name} environment failed (${how}).${said ? `\n${said}` : ""}`,
    { code: "invalid_config" },
  );
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
