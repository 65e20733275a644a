import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { requirementsOf, type EnvironmentName } from "./environment.ts";
import { workerDir } from "./paths.ts";
import { cleanEnvironment, messageOf } from "./virtual-environment.ts";

const run = promisify(execFile);

const reportSchema = z.object({
  problems: z.array(z.string()),
  packages: z.int(),
  torch: z.string().nullable(),
  cuda: z.object({ version: z.string().nullable(), available: z.boolean() }).nullable(),
});
export type EnvironmentReport = z.infer<typeof reportSchema>;

export interface VerifyOptions {
  /** Whose pins are looked for. @default those of the worker */
  names?: readonly EnvironmentName[] | undefined;
  /** Modules that must import. */
  modules?: readonly string[] | undefined;
  signal?: AbortSignal | undefined;
}

/** Compares every installed file with what its package recorded. Never rejects, but when it is aborted. */
export async function verifyEnvironment(
  python: string,
  { names = ["worker"], modules = [], signal }: VerifyOptions = {},
): Promise<EnvironmentReport> {
  const script = join(workerDir, "hone_worker", "check_environment.py");
  const imports = modules.flatMap((module) => ["--import", module]);
  try {
    const { stdout } = await run(
      python,
      ["-I", script, ...imports, ...names.map((name) => requirementsOf(name))],
      { signal, env: cleanEnvironment(), timeout: 300_000 },
    );
    return reportSchema.parse(JSON.parse(stdout));
  } catch (error) {
    signal?.throwIfAborted();
    const { stderr } = error as { stderr?: unknown };
    const lines = typeof stderr === "string" ? stderr.trim().split("\n") : [];
    const reason = lines.at(-1) || messageOf(error).split("\n")[0];
    const problem = `its Python does not run (${reason})`;
    return { problems: [problem], packages: 0, torch: null, cuda: null };
  }
}
