import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

type Environment = Readonly<Record<string, string | undefined>>;

/** The Python package, beside `src` and `dist` alike. */
export const workerDir = fileURLToPath(new URL("../../worker", import.meta.url));

/** What can be made again: Python environments. */
export function cacheDir(environment: Environment = process.env): string {
  return (
    environment["HONE_CACHE"] ||
    join(environment["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "hone")
  );
}

/** The file that is written last into an environment: without it, setup was interrupted. */
export const completeMarker = "hone-complete.json";
