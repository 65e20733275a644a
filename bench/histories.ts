// `pnpm bench histories [--rollouts 96] [--turns 20] [--rows 64] [--rounds 3]` — what it costs to have more
// rollouts than rows: with histories kept by memory, and with those that lie in rows alone.
import { parseArgs } from "node:util";
import { startPython } from "./python-child.ts";

interface Round {
  side: "rows" | "memory";
  prefilled: number;
  needed: number;
  evicted: number;
  sampled_per_cpu_second: number;
  kept_mib: number;
}

const { values: options } = parseArgs({
  options: {
    rollouts: { type: "string" },
    turns: { type: "string" },
    rows: { type: "string" },
    rounds: { type: "string" },
    "cache-mib": { type: "string" },
  },
});
const { values, ended } = await startPython("histories.py", options, "1");
const speeds = { rows: [] as number[], memory: [] as number[] };
for await (const value of values) {
  const round = value as Round;
  const { side, prefilled, needed, evicted, sampled_per_cpu_second: speed, kept_mib: kept } = round;
  speeds[side].push(speed);
  console.log(
    `histories by ${side}: ${prefilled} tokens prefilled, ${(prefilled / needed).toFixed(2)} times what is ` +
      `needed; ${evicted} histories evicted; ${speed.toFixed(0)} tokens per CPU second; ${kept.toFixed(0)} MiB kept`,
  );
}
const ratios = speeds.memory.map((speed, i) => speed / (speeds.rows[i] ?? Number.NaN));
const median = ratios.toSorted((a, b) => a - b)[Math.floor(ratios.length / 2)];
console.log(
  `by memory is ${median?.toFixed(2)} times as fast in processor time (median of ${ratios.length} rounds)`,
);
process.exitCode = await ended;
