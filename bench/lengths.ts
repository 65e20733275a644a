// `pnpm bench lengths [--rounds 3] [--steps 40]` — what a decode step costs when rows of very different lengths are
// decoded together: in spans of similar length, and all of them over the longest.
import { parseArgs } from "node:util";
import { startPython } from "./python-child.ts";

interface Round {
  shape: string;
  side: "together" | "spans";
  milliseconds: number;
}

const { values: options } = parseArgs({
  options: { rounds: { type: "string" }, steps: { type: "string" }, base: { type: "string" } },
});
const { values, ended } = await startPython("lengths.py", options, "1");
const times = new Map<string, Record<Round["side"], number[]>>();
for await (const value of values) {
  const { shape, side, milliseconds } = value as Round;
  const of = times.get(shape) ?? { together: [], spans: [] };
  times.set(shape, of);
  of[side].push(milliseconds);
}
const median = (all: number[]): number =>
  all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN;
for (const [shape, { together, spans }] of times) {
  const ratio = median(together.map((time, round) => time / (spans[round] ?? Number.NaN)));
  console.log(
    `16 rows, ${shape}: ${median(together).toFixed(1)} ms a step over the longest, ` +
      `${median(spans).toFixed(1)} ms in spans: ${ratio.toFixed(2)} times as fast`,
  );
}
process.exitCode = await ended;
