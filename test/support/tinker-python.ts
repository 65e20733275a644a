import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheDir, completeMarker } from "../../packages/server/src/setup/paths.ts";

export const requirements = fileURLToPath(
  new URL("../../scripts/tinker/requirements.txt", import.meta.url),
);

/** Where Tinker's client is installed, whether it is or not: an environment of its own, named by what is in it. */
export function environmentFolder(): string {
  const hash = createHash("sha256").update(readFileSync(requirements));
  return join(cacheDir(), "envs", `tinker-${hash.digest("hex").slice(0, 16)}`);
}

export const pythonOf = (folder: string): string => join(folder, "bin", "python");

/** The Python that has the client: HONE_TINKER_PYTHON, or that of the environment. Null: there is none. */
export function findTinkerPython(): string | null {
  const chosen = process.env["HONE_TINKER_PYTHON"];
  if (chosen) return existsSync(chosen) ? chosen : null;
  const folder = environmentFolder();
  const python = pythonOf(folder);
  return existsSync(join(folder, completeMarker)) && existsSync(python) ? python : null;
}
