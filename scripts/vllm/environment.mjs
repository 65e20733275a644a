// Where vLLM is installed: an environment of its own, named by what is in it.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { tsImport } from "tsx/esm/api";

/** The same cache as that of the worker's environment. */
const { cacheDir, completeMarker } = await tsImport(
  "../../packages/server/src/setup/paths.ts",
  import.meta.url,
);

export const requirementFiles = ["vllm.txt", "requirements.txt"].map((name) =>
  join(import.meta.dirname, name),
);

export const torchVersion = "2.13.0";

/** The folder of the environment, whether it exists or not. */
export function environmentFolder() {
  const hash = createHash("sha256").update(torchVersion);
  for (const file of requirementFiles) hash.update(readFileSync(file));
  return join(cacheDir(), "envs", `vllm-${hash.digest("hex").slice(0, 16)}`);
}

export const pythonOf = (folder) => join(folder, "bin", "python");

/** The Python that has vLLM: HONE_VLLM_PYTHON, or the environment that setup.mjs makes. Null: none. */
export function findVllmPython() {
  const chosen = process.env.HONE_VLLM_PYTHON;
  if (chosen) return existsSync(chosen) ? chosen : null;
  const folder = environmentFolder();
  const python = pythonOf(folder);
  return existsSync(join(folder, completeMarker)) && existsSync(python) ? python : null;
}
