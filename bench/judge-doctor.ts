// `pnpm bench judge-doctor [--seeds 20]` — the judge doctor on scripted judges of known noise, liking for a place and
// saturation: what it finds of each, how often its 95% interval holds the truth, and its verdicts. Some ten seconds.
import { parseArgs } from "node:util";
import { examineJudges, functionJudge, type JudgeReport } from "@hone/recipes";
import { mulberry32, type TrajectoryGroup } from "@hone/core";
import { mean } from "../packages/recipes/src/doctor/statistics.ts";
import {
  groupOf,
  groupsOf,
  normals,
  qualityOf,
} from "../packages/recipes/src/doctor/outputs.test-support.ts";

const { values } = parseArgs({ options: { seeds: { type: "string", default: "20" } } });
const seeds = Array.from({ length: Number(values.seeds) }, (_, at) => at + 1);
const [groups, outputs] = [50, 8];

type Figure = "variance" | "accuracy" | "noise" | "noiseRatio" | "positionBias" | "saturation";
type Scores = (of: readonly number[], normal: () => number) => number[];

interface Scripted {
  judge: string;
  /** Of the outputs' quality, within groups and between them; null: even from −.3 to 1.3. */
  spread: { within: number; between: number } | null;
  scores: Scores;
  truths: Partial<Record<Figure, number>>;
}

const noisy = (within: number, between: number, noise: number): Scripted => ({
  judge: `noise ${noise}, outputs ${within} within and ${between} between groups`,
  spread: { within, between },
  scores: (of, normal) => of.map((quality) => quality + noise * normal()),
  truths: {
    noise,
    noiseRatio: noise ** 2 / (noise ** 2 + within ** 2),
    variance: (within ** 2 + noise ** 2) / (within ** 2 + noise ** 2 + between ** 2),
    // A pair differs by N(0, 2·within²), its scores by noise of N(0, 2·noise²) more.
    accuracy: 0.5 + Math.atan(within / noise) / Math.PI,
    positionBias: 0,
  },
});
const liking = (bias: number): Scripted => ({
  judge: `likes the last by ${bias}, noise 0.1`,
  spread: { within: 0.2, between: 0.3 },
  scores: (of, normal) =>
    of.map((quality, at) => quality + 0.1 * normal() + (bias * at) / (of.length - 1)),
  truths: { positionBias: bias, noise: 0.1 },
});
const judges: Scripted[] = [
  noisy(0.2, 0.3, 0.1),
  noisy(0.2, 0.2, 0.2),
  noisy(0.2, 0.2, 0.5),
  noisy(0.02, 0.2, 0.005),
  liking(0.1),
  liking(0.3),
  {
    judge: "cuts scores off at 0 and 1",
    spread: null,
    scores: (of) => of.map((quality) => Math.min(1, Math.max(0, quality))),
    truths: { saturation: 0.6 / 1.6 },
  },
];

const rows = [];
for (const scripted of judges) {
  const reports = await Promise.all(seeds.map(async (seed) => await examined(scripted, seed)));
  const levels = (["good", "warn", "fail"] as const).flatMap((level) => {
    const count = reports.filter(({ verdict }) => verdict.level === level).length;
    return count > 0 ? [`${count} ${level}`] : [];
  });
  for (const [figure, truth] of Object.entries(scripted.truths) as [Figure, number][]) {
    const found = reports.flatMap((report) => report[figure] ?? []);
    const held = found.filter(({ low, high }) => (low ?? NaN) <= truth && truth <= (high ?? NaN));
    rows.push({
      judge: scripted.judge,
      figure,
      truth: Number(truth.toFixed(3)),
      found: Number(mean(found.map(({ value }) => value)).toFixed(3)),
      "intervals that hold it": `${held.length} of ${reports.length}`,
      verdicts: levels.join(", "),
    });
  }
}
console.table(rows);

async function examined({ spread, scores }: Scripted, seed: number): Promise<JudgeReport> {
  const normal = normals(1000 + seed);
  const given = spread ? groupsOf({ groups, outputs, ...spread, seed }) : evenGroups(seed);
  const judge = functionJudge("scripted", (of) => scores(of.map(qualityOf), normal));
  const [report] = await examineJudges(given, [judge], { seed: 3 });
  return report!;
}

function evenGroups(seed: number): TrajectoryGroup[] {
  const random = mulberry32(seed);
  return Array.from({ length: groups }, (_, at) =>
    groupOf(
      `g${at}`,
      Array.from({ length: outputs }, () => 1.6 * random() - 0.3),
    ),
  );
}
