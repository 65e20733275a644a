// `pnpm bench packing [--groups 8] [--rounds 3] [--threads 2] [--only games|answers]` — what packing saves the
// trainer: the same step with shared tokens once, and with a padded row for each sequence.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findEnvironment } from "@hone/server";

interface Side {
  step_seconds: number;
  cpu_seconds: number;
  tokens_through_model: number;
  sequence_tokens_per_second: number;
  sampled_tokens_per_second: number;
}

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    groups: { type: "string" },
    rounds: { type: "string" },
    threads: { type: "string", default: "2" },
    only: { type: "string" },
  },
});
const child = spawn(
  await findEnvironment(),
  [
    at("packing.py"),
    ...["--base", at("../models/hone-2048-1m")],
    ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]),
  ],
  {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      PYTHONPATH: at("../packages/server/worker"),
      HF_HUB_OFFLINE: "1",
      OMP_NUM_THREADS: options.threads,
      OMP_WAIT_POLICY: "PASSIVE",
    },
  },
);
const ended = new Promise<number>((resolve, reject) => {
  child.once("error", reject);
  child.once("exit", (code) => resolve(code ?? 1));
});
const row = (side: Side) => ({
  "tokens through the model": side.tokens_through_model,
  "s a step": side.step_seconds.toFixed(2),
  "CPU s a step": side.cpu_seconds.toFixed(2),
  "sequence tokens/s": side.sequence_tokens_per_second.toFixed(0),
  "sampled tokens/s": side.sampled_tokens_per_second.toFixed(0),
});
for await (const line of createInterface({ input: child.stdout })) {
  const { workload, rows, tree } = JSON.parse(line) as { workload: string; rows: Side; tree: Side };
  console.log(workload);
  console.table({ "a row each": row(rows), packed: row(tree) });
  const ratio = (key: "step_seconds" | "cpu_seconds"): string => (rows[key] / tree[key]).toFixed(2);
  console.log(`packed is ${ratio("step_seconds")}x as fast, CPU ${ratio("cpu_seconds")}x`);
}
process.exitCode = await ended;
