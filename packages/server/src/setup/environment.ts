import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { cacheDir, completeMarker, workerDir } from "./paths.ts";
import { describePython, supportedPythons, type Interpreter } from "./python.ts";
import { chooseTorch, torchVersion, type TorchBuild } from "./torch.ts";

/** Increase it when setup does something else without a change of the requirements. */
const format = 2;

/** "test" lies on top of "worker": it has its own packages and sees the other's. */
export type EnvironmentName = "worker" | "test";

export interface EnvironmentPlan {
  /** For messages. */
  name: string;
  dir: string;
  /** The interpreter inside. */
  python: string;
  /** The Python that it is made from. */
  interpreter: Interpreter;
  torch: TorchBuild;
}

/** Where the environment for these requirements and this Python lies, made or not. */
export function planEnvironment(
  name: EnvironmentName,
  interpreter: Interpreter,
  torch: TorchBuild,
): EnvironmentPlan {
  const hash = createHash("sha256").update(
    JSON.stringify([format, torchVersion, torch, interpreter]),
  );
  hash.update(readFileSync(requirementsOf("worker")));
  if (name === "test") hash.update(readFileSync(requirementsOf("test")));
  const dir = join(cacheDir(), "envs", `${name}-${hash.digest("hex").slice(0, 16)}`);
  const python = join(dir, "bin", "python");
  return { name, dir, python, interpreter, torch };
}

/** One plan for each Python that the worker's environment may be made from, the preferred first. */
export async function* workerPlans(torch: TorchBuild): AsyncGenerator<EnvironmentPlan> {
  for await (const interpreter of supportedPythons()) {
    yield planEnvironment("worker", interpreter, torch);
  }
}

export function requirementsOf(name: EnvironmentName): string {
  return join(workerDir, "requirements", `${name}.txt`);
}

/**
 * The Python that the server starts its children with: HONE_PYTHON as it is, or else that of the environment
 * that setup made, whichever Python it was made from.
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
  const { build } = await chooseTorch();
  for await (const plan of workerPlans(build)) if (isComplete(plan)) return plan.python;
  throw new HoneError(
    "The Python environment is missing or not the one of this version. Run `npx @hone/server setup` once (in a clone: `npm run hone -- setup`).",
    { code: "invalid_config" },
  );
}

const markerOf = (plan: Pick<EnvironmentPlan, "dir">): string => join(plan.dir, completeMarker);

export function isComplete(plan: Pick<EnvironmentPlan, "dir" | "python">): boolean {
  // The interpreter is a link, and what it leads to may have been removed since.
  return existsSync(markerOf(plan)) && existsSync(plan.python);
}

export function markComplete(plan: EnvironmentPlan): void {
  const content = {
    python: plan.interpreter.version,
    torch: { version: torchVersion, build: plan.torch },
  };
  writeFileSync(markerOf(plan), `${JSON.stringify(content)}\n`);
}
