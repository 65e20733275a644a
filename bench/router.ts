// `pnpm bench router` — 1,000 rollouts of six turns in groups of eight over eight scripted engines, on a clock of its
// own: how many turns find their prefix where they go, and how evenly the engines are loaded.
import { parseArgs } from "node:util";
import {
  simulateRouting,
  type Simulation,
} from "../packages/server/src/testing/router-simulation.ts";

parseArgs({ options: {} }); // it has none
const usual: Simulation = { engines: 8, rollouts: 1000, turns: 6, concurrency: 256 };
const cases: [what: string, Partial<Simulation>][] = [
  ["256 at a time, all engines alike", {}],
  ["256 at a time, one three times as slow", { slow: 3 }],
  ["512 at a time, one three times as slow", { slow: 3, concurrency: 512 }],
  ["64 at a time, one three times as slow", { slow: 3, concurrency: 64 }],
  [
    "256 at a time, one slow, another away for four seconds",
    {
      slow: 3,
      events: [
        { atMs: 5_000, engine: 2, shut: "fenced" },
        { atMs: 9_000, engine: 2, shut: null },
      ],
    },
  ],
  ["512 at a time on engines that hold 192, one slow", { slow: 3, concurrency: 512, kvHolds: 24 }],
];
console.log("| | turns that found their prefix | open rollouts over the mean | moved |");
console.log("|---|---|---|---|");
for (const [what, changes] of cases) {
  const { withPrefix, worstOverMean, averageOverMean, moved } = await simulateRouting({
    ...usual,
    ...changes,
  });
  const load = `${worstOverMean.toFixed(2)}, ${averageOverMean.toFixed(2)}`;
  console.log(`| ${what} | ${(100 * withPrefix).toFixed(1)}% | ${load} | ${moved} |`);
}
