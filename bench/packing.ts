// `pnpm bench packing [--groups 8] [--rounds 3] [--threads 2] [--only games|answers]` — what packing saves the
// trainer: the same step with shared tokens once, and with a padded row for each sequence.
import { parseArgs } from "node:util";
import { startPython } from "./python-child.ts";

interface Side {
  step_seconds: number;
  cpu_seconds: number;
  tokens_through_model: number;
  sequence_tokens_per_second: number;
  sampled_tokens_per_second: number;
}

const { values: options } = parseArgs({
  options: {
    groups: { type: "string" },
    rounds: { type: "string" },
    threads: { type: "string", default: "2" },
    only: { type: "string" },
  },
});
const { values, ended } = await startPython("packing.py", options, options.threads);
const row = (side: Side) => ({
  "tokens through the model": side.tokens_through_model,
  "s a step": side.step_seconds.toFixed(2),
  "CPU s a step": side.cpu_seconds.toFixed(2),
  "sequence tokens/s": side.sequence_tokens_per_second.toFixed(0),
  "sampled tokens/s": side.sampled_tokens_per_second.toFixed(0),
});
for await (const value of values) {
  const { workload, rows, tree } = value as { workload: string; rows: Side; tree: Side };
  console.log(workload);
  console.table({ "a row each": row(rows), packed: row(tree) });
  const ratio = (key: "step_seconds" | "cpu_seconds"): string => (rows[key] / tree[key]).toFixed(2);
  console.log(`packed is ${ratio("step_seconds")}x as fast, CPU ${ratio("cpu_seconds")}x`);
}
process.exitCode = await ended;
