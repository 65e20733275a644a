import { workerDir } from "./paths.ts";

/** How a module of the worker's package is run. */
export function pythonModule(
  options: { python: string },
  module: string,
  args: string[],
): { command: string; args: string[]; env: Record<string, string | null> } {
  return {
    command: options.python,
    // -s: packages of the user's home are not the environment's.
    args: ["-s", "-m", module, ...args],
    env: {
      PYTHONPATH: workerDir,
      PYTHONHOME: null,
      PYTHONUNBUFFERED: "1",
      OMP_WAIT_POLICY: "passive",
      TOKENIZERS_PARALLELISM: "false",
    },
  };
}
