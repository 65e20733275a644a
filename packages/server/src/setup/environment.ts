import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { HoneError } from "@hone/core";
import { cacheDir, workerDir } from "./paths.ts";
import { describePython, findPython, hasNvidia, type Interpreter } from "./python.ts";

/** Raised when what setup does changes in a way that the requirements do not show. */
const format = 2;
export const torchVersion = "2.13.0";

/** "test" lies on top of "worker": it has its own packages and sees the other's. */
export type EnvironmentName = "worker" | "test";

export interface EnvironmentPlan {
  name: EnvironmentName;
  dir: string;
  /** The interpreter inside. */
  python: string;
  interpreter: Interpreter;
  requirements: string;
  torch: "cpu" | "default";
}

/** Where the environment for these requirements and this Python lies, made or not. */
export async function planEnvironment(name: EnvironmentName): Promise<EnvironmentPlan> {
  const interpreter = await findPython();
  const torch = interpreter.platform.startsWith("linux") && !hasNvidia() ? "cpu" : "default";
  const hash = createHash("sha256").update(
    JSON.stringify([format, torchVersion, torch, interpreter]),
  );
  hash.update(readFileSync(requirementsOf("worker")));
  if (name === "test") hash.update(readFileSync(requirementsOf("test")));
  const dir = join(cacheDir(), "envs", `${name}-${hash.digest("hex").slice(0, 16)}`);
  return {
    name,
    dir,
    python: join(dir, "bin", "python"),
    interpreter,
    requirements: requirementsOf(name),
    torch,
  };
}

function requirementsOf(name: EnvironmentName): string {
  return join(workerDir, "requirements", `${name}.txt`);
}

/**
 * The Python that the server starts its children with: HONE_PYTHON as it is, else the environment that
 * setup made. The test environment serves as well where only that was asked for.
 */
export async function findEnvironment(): Promise<string> {
  const named = process.env["HONE_PYTHON"];
  if (named) {
    try {
      await describePython(named);
    } catch (cause) {
      throw new HoneError(
        `HONE_PYTHON is ${named}, which cannot be run. Name a Python interpreter, or unset it and run setup.`,
        { code: "invalid_config", cause },
      );
    }
    return named;
  }
  const plan = await planEnvironment("worker");
  if (isComplete(plan)) return plan.python;
  throw new HoneError(
    "The Python environment is missing or not the one of this version. Run `npx @hone/server setup` once (in a clone: `npm run hone -- setup`).",
    { code: "invalid_config" },
  );
}

const markerOf = (plan: EnvironmentPlan): string => join(plan.dir, "hone-complete.json");

export function isComplete(plan: EnvironmentPlan): boolean {
  // The second test: the interpreter is a link to one that may have been removed since.
  return existsSync(markerOf(plan)) && existsSync(plan.python);
}

export function markComplete(plan: EnvironmentPlan): void {
  const content = { python: plan.interpreter.version, torch: torchVersion, build: plan.torch };
  writeFileSync(markerOf(plan), `${JSON.stringify(content)}\n`);
}

/** Removes what an interrupted setup left. */
export function clear(plan: EnvironmentPlan): void {
  rmSync(plan.dir, { recursive: true, force: true });
  mkdirSync(dirname(plan.dir), { recursive: true });
}
