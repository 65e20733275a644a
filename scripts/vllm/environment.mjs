// Where vLLM is installed: an environment of its own, named by what is in it.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

export const requirementFiles = ["vllm.txt", "requirements.txt"].map((name) =>
  join(import.meta.dirname, name),
);

export const torchVersion = "2.13.0";

/** The folder of the environment, whether it exists or not. */
export function environmentFolder() {
  const hash = createHash("sha256").update(torchVersion);
  for (const file of requirementFiles) hash.update(readFileSync(file));
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return join(cache, "hone", "envs", `vllm-${hash.digest("hex").slice(0, 16)}`);
}

/** The Python that has vLLM: HONE_VLLM_PYTHON, or the environment that setup.mjs makes. Null: none. */
export function findVllmPython() {
  const chosen = process.env.HONE_VLLM_PYTHON;
  if (chosen) return existsSync(chosen) ? chosen : null;
  const folder = environmentFolder();
  return existsSync(join(folder, "complete")) ? join(folder, "bin", "python") : null;
}
