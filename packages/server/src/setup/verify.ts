import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { HoneError } from "@hone/core";
import { z } from "zod";
import { requirementsOf } from "./environment.ts";
import { workerDir } from "./paths.ts";
import { cleanEnvironment, listed, messageOf } from "./virtual-environment.ts";

const run = promisify(execFile);

const reportSchema = z.object({
  problems: z.array(z.string()),
  packages: z.int(),
  torch: z.string().nullable(),
  cuda: z.object({ version: z.string().nullable(), available: z.boolean() }).nullable(),
});
export type EnvironmentReport = z.infer<typeof reportSchema>;

/** What the Python side imports first; a package whose native library is missing fails here. */
export const essentialModules = ["torch", "transformers", "renderers", "uvicorn"] as const;

export interface VerifyOptions {
  /** Files whose pinned packages must be there. @default the worker's */
  requirements?: readonly string[] | undefined;
  /** Modules that must import. */
  modules?: readonly string[] | undefined;
  signal?: AbortSignal | undefined;
}

/** Compares every installed file with what its package recorded. Rejects only if it is aborted. */
export async function verifyEnvironment(
  python: string,
  { requirements = [requirementsOf("worker")], modules = [], signal }: VerifyOptions = {},
): Promise<EnvironmentReport> {
  const script = join(workerDir, "hone_worker", "tools", "check_environment.py");
  const imports = modules.flatMap((module) => ["--import", module]);
  try {
    const { stdout } = await run(python, ["-I", script, ...imports, ...requirements], {
      signal,
      env: cleanEnvironment(),
      timeout: 300_000,
    });
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

/** A traceback's last line, lines of any kind, a signal, or nothing that could be run. */
const diedUnexplained = /\b\w+(Error|Exception): |Its last lines: |ended by SIG|could not be run/;

/** If a child did not start because its environment is broken, the error that says so; else null. */
export async function brokenEnvironment(python: string, error: unknown): Promise<HoneError | null> {
  const children = ["renderer_unavailable", "worker_unavailable"];
  if (!HoneError.isInstance(error) || !children.includes(error.code)) return null;
  // The child has reported the reason itself, and looking at the environment takes seconds.
  if (!diedUnexplained.test(error.message)) return null;
  // An environment that setup did not make may have other versions than setup would have chosen.
  const requirements = process.env["HONE_PYTHON"] ? [] : undefined;
  const { problems } = await verifyEnvironment(python, { requirements, modules: essentialModules });
  return problems.length === 0 ? null : broken(python, problems, { cause: error });
}

export function broken(
  python: string,
  problems: readonly string[],
  { engine, cause }: { engine?: "vllm" | undefined; cause?: unknown } = {},
): HoneError {
  const variable = engine === "vllm" ? "HONE_VLLM_PYTHON" : "HONE_PYTHON";
  const command = `npx @hone/server setup${engine === "vllm" ? " --engine vllm" : ""}`;
  const remedy = process.env[variable]
    ? `Install what is missing into what ${variable} names, or unset it and run setup`
    : `Run \`${command}\` to make it again`;
  return new HoneError(
    `The Python environment${engine === "vllm" ? " of vLLM" : ""} is broken: ${listed(problems)}. ${remedy} (${python}).`,
    { code: "invalid_config", cause },
  );
}
