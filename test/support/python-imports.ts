import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The modules of the worker in the repository at `root`, each with what it imports. */
export function pythonImports(root: string): Map<string, string[]> {
  const folder = join(root, "packages/server/worker/hone_worker");
  if (!existsSync(folder)) return new Map();
  const script = fileURLToPath(new URL("python_imports.py", import.meta.url));
  const python = process.env["HONE_PYTHON"] ?? "python3";
  const text = execFileSync(python, [script, folder], { encoding: "utf8" });
  return new Map(Object.entries(JSON.parse(text) as Record<string, string[]>));
}
