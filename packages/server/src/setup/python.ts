import { execFile } from "node:child_process";
import { realpathSync } from "node:fs";
import { promisify } from "node:util";
import { HoneError } from "@hone/core";
import { z } from "zod";

const run = promisify(execFile);

const interpreterSchema = z.object({
  executable: z.string().min(1),
  version: z.tuple([z.int(), z.int(), z.int()]),
  platform: z.string(),
});
export interface Interpreter {
  executable: string;
  /** `3.11.7` */
  version: string;
  /** `linux-x86_64` */
  platform: string;
}

const question =
  "import json, platform, sys; print(json.dumps({'executable': sys.executable, 'version': list(sys.version_info[:3]), 'platform': sys.platform + '-' + platform.machine()}))";

/** 3.11 first: it has prebuilt packages everywhere. What `python3` is comes before the others. */
const candidates = ["python3.11", "python3", "python3.12", "python3.13", "python"];
const oldest = 11;
/** The newest for which every pinned package is prebuilt. */
const newest = 13;

/**
 * The interpreters on PATH that an environment may be made from, the preferred first, each once however
 * many names it has. Throws at the end if there was none.
 */
export async function* supportedPythons(): AsyncGenerator<Interpreter> {
  const unsupported: string[] = [];
  const files = new Set<string>();
  for (const command of candidates) {
    const found = await describePython(command).catch(() => null);
    if (!found) continue;
    if (!isSupported(found)) {
      unsupported.push(`${command} is ${found.version}`);
      continue;
    }
    const file = realpathSync(found.executable);
    if (files.has(file)) continue;
    files.add(file);
    yield found;
  }
  if (files.size > 0) return;
  throw new HoneError(
    `Python 3.${oldest} to 3.${newest} was not found${unsupported.length ? ` (${unsupported.join(", ")})` : ""}. Install Python 3.11, or name an interpreter that has the packages in HONE_PYTHON.`,
    { code: "invalid_config" },
  );
}

function isSupported({ version }: Interpreter): boolean {
  const [major, minor] = version.split(".").map(Number);
  return major === 3 && minor !== undefined && minor >= oldest && minor <= newest;
}

/** Asks an interpreter what it is. Rejects if it cannot be run. */
export async function describePython(command: string): Promise<Interpreter> {
  const { stdout } = await run(command, ["-I", "-c", question], { timeout: 30_000 });
  const { executable, version, platform } = interpreterSchema.parse(JSON.parse(stdout));
  return { executable, version: version.join("."), platform };
}
