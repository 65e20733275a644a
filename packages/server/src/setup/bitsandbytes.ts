import { join } from "node:path";
import { HoneError } from "@hone/core";
import { workerDir } from "./paths.ts";
import { failureOf, pipQuietly, type SetupOptions } from "./virtual-environment.ts";

/** What `serve --quantize` and `optimizer: "adamw_8bit"` need. It is large, and most servers do without it. */
export async function addBitsandbytes(python: string, options: SetupOptions): Promise<void> {
  options.say("Installing requirements/bitsandbytes.txt (up to 43 MB to download) …");
  const requirements = join(workerDir, "requirements", "bitsandbytes.txt");
  const failure = await failureOf(
    python,
    [
      ...["-m", "pip", "install", ...pipQuietly],
      ...["--no-deps", "--require-hashes", "-r", requirements],
    ],
    options,
  );
  if (failure === null) return;
  throw new HoneError(
    `bitsandbytes could not be installed: ${failure}\nIt comes from a package index: check the network, or pip's index settings.`,
    { code: "invalid_config", param: "bitsandbytes" },
  );
}
