// `pnpm experiment sft-rl [--seeds 1,2,3] [--samples 576] [--shown 96] [--out FOLDER]` — the inbox example by
// demonstrations alone, by rewards alone, and by few demonstrations and then rewards, with as many samples: a sample
// is a demonstration or a rollout. What is done stands in FOLDER/results.json, and the same command goes on there.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compare, evaluationTable } from "@hone/client";
import { answer, rolloutsOfStep, trainArm, type Arm } from "./inbox/arm.ts";
import { openResults } from "./inbox/results.ts";
import { withSmollm2 } from "./inbox/served.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    samples: { type: "string", default: "576" },
    shown: { type: "string", default: "96" },
    out: { type: "string", default: "runs/sft-rl" },
  },
});
const samples = Number(values.samples);
const shown = Number(values.shown);
const arms: Arm[] = [
  { name: "both", demonstrations: shown, steps: (samples - shown) / rolloutsOfStep },
  { name: "rl", demonstrations: 0, steps: samples / rolloutsOfStep },
  { name: "sft", demonstrations: samples, steps: 0 },
];
const { folder, results, keep } = await openResults(values.out);

await withSmollm2(join(folder, "server"), async (hone) => {
  await keep("base", () => answer(hone, "base"));
  for (const seed of values.seeds.split(",").map(Number)) {
    for (const arm of arms)
      await keep(`${arm.name} ${seed}`, async () => answer(hone, await trainArm(hone, arm, seed)));
    console.table(evaluationTable(results, { metric: "exact" }));
  }
});
console.table(evaluationTable(results, { metric: "exact" }));
// Over the seeds: a mail's score is its mean, and the interval is over mails.
const pooled = ({ name }: Arm) =>
  (results["base"] ?? []).map((group, at) => ({
    ...group,
    trajectories: Object.entries(results).flatMap(([key, groups]) =>
      key.startsWith(`${name} `) ? (groups[at]?.trajectories ?? []) : [],
    ),
  }));
for (const [one, other] of [
  [arms[1], arms[0]],
  [arms[2], arms[0]],
  [arms[2], arms[1]],
] as [Arm, Arm][]) {
  const { before, after, low, high } = compare(pooled(one), pooled(other), { metric: "exact" });
  const digits = [before, after, low, high].map((value) => value.toFixed(3));
  console.log(
    `${one.name} ${digits[0]}, ${other.name} ${digits[1]}: difference [${digits[2]}, ${digits[3]}]`,
  );
}
