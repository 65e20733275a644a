import { spawn } from "node:child_process";
import { once } from "node:events";
import { HoneError } from "@hone/core";
import { findEnvironment } from "./environment.ts";
import { workerDir } from "./paths.ts";

/** Writes a copy of the base with the adapter in its weights, with the worker's Python. */
export async function mergeAdapter(options: {
  base: string;
  adapter: string;
  folder: string;
  /** As a sequence classifier, with the head beside the adapter. @default false */
  classifier?: boolean | undefined;
  /** Gets lines for people to read. */
  say: (line: string) => void;
}): Promise<void> {
  const python = await findEnvironment();
  const { base, adapter, folder } = options;
  const args = ["--base", base, "--adapter", adapter, "--out", folder];
  if (options.classifier) args.push("--classifier");
  // -s: packages of the user's home are not the environment's.
  const child = spawn(python, ["-s", "-m", "hone_worker.tools.merge", ...args], {
    env: { ...process.env, PYTHONPATH: workerDir, PYTHONUNBUFFERED: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr
    .setEncoding("utf8")
    .on("data", (text: string) => (errors = (errors + text).slice(-4000)));
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    for (const line of text.split("\n")) if (line.trim()) options.say(line);
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code === 0) return;
  const last = errors.trim().split("\n").at(-1) ?? "";
  throw new HoneError(`The copy could not be made: ${last || `Python ended with ${code}`}`, {
    code: "bad_adapter",
  });
}
