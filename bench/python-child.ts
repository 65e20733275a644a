import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { findEnvironment } from "@hone/server";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export interface PythonChild {
  /** What it prints, a value of JSON in each line. */
  values: AsyncIterable<unknown>;
  /** Its exit status. */
  ended: Promise<number>;
}

/** A bench of the worker's own code, in its Python and over the small model that we ship. */
export async function startPython(
  program: string,
  options: Readonly<Record<string, string>>,
  threads: string,
): Promise<PythonChild> {
  const child = spawn(
    await findEnvironment(),
    [
      at(program),
      ...["--base", at("../models/hone-2048-1m")],
      ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]),
    ],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...process.env,
        PYTHONPATH: at("../packages/server/worker"),
        HF_HUB_OFFLINE: "1",
        OMP_NUM_THREADS: threads,
        OMP_WAIT_POLICY: "PASSIVE",
      },
    },
  );
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
  return { values: valuesOf(createInterface({ input: child.stdout })), ended };
}

async function* valuesOf(lines: AsyncIterable<string>): AsyncGenerator {
  for await (const line of lines) yield JSON.parse(line);
}
