// `pnpm experiment self-judge [--seeds 1,2,3] [--steps 60] [--rate 2e-3] [--arms gold,self,fifth,control] [--out FOLDER]` — a policy
// that judges itself, with gold for a fifth of the scenarios, beside gold for all, the gold fifth alone, and a control
// whose rewards are shuffled. What is done stands in FOLDER/results.json, and the same command goes on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile, readFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compare, Hone, readGroups, type TrajectoryGroup } from "@hone/client";
import { trainRun } from "@hone/client/run";
import { startServer } from "@hone/server";
import { findEnvironment } from "../packages/server/src/setup/environment.ts";
import { openResults } from "./inbox/results.ts";
import {
  arms as allArms,
  hasGold,
  judgeEvaluation,
  taskOf,
  type Arm,
  type Colours,
} from "./self-judge/colours.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    steps: { type: "string", default: "60" },
    rate: { type: "string", default: "2e-3" },
    arms: { type: "string", default: allArms.join(",") },
    out: { type: "string", default: "runs/self-judge" },
  },
});
const seeds = values.seeds.split(",").map(Number);
const arms = values.arms.split(",") as Arm[];
const { folder, results, keep } = await openResults(values.out);
const base = join(folder, "base");
if (!existsSync(join(base, "model.safetensors"))) {
  const script = fileURLToPath(new URL("self-judge/make_base.py", import.meta.url));
  execFileSync(await findEnvironment(), [script, base], { stdio: "inherit" });
}
const colours = JSON.parse(await readFile(join(base, "colours.json"), "utf8")) as Colours;

const server = await startServer({ base, port: 0, dataDir: join(folder, "server") });
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  for (const seed of seeds) {
    for (const arm of arms) await keep(`${arm} ${seed}`, () => runOf(hone, arm, seed));
  }
} finally {
  await server.close();
}
show();

/** Trains one arm, and leaves what the trained policy answers; the judge's accuracy stands beside it. */
async function runOf(hone: Hone, arm: Arm, seed: number): Promise<TrajectoryGroup[]> {
  const began = performance.now();
  const name = `${arm}-${seed}`;
  const out = join(folder, "runs", name);
  const task = taskOf(arm, seed, colours, Number(values.steps), Number(values.rate));
  await trainRun(task, { name, out, seed, hone, shuffleRewards: arm === "control", ungated: true });
  const model = await hone.model({ name });
  await keep("base answers", () => evaluation(out, "base"));
  await keep("base judges", () => judgeEvaluation(model, "base", colours, 4));
  await keep(`${arm} ${seed} judges`, () => judgeEvaluation(model, "trained", colours, 4));
  const trained = await evaluation(out, "trained");
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  const line = {
    arm,
    seed,
    minutes,
    load: loadavg()[0]?.toFixed(1),
    right: meanOf(trained).toFixed(3),
  };
  await appendFile(join(folder, "times.jsonl"), `${JSON.stringify(line)}\n`);
  console.log(JSON.stringify(line));
  return trained;
}

/** The newest evaluation of that label that a run's folder keeps. */
async function evaluation(out: string, label: string): Promise<TrajectoryGroup[]> {
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
  const records = lines.map(
    (line) => JSON.parse(line) as { type: string; label?: string; file?: string },
  );
  const record = records.findLast((one) => one.type === "evaluation" && one.label === label);
  return await readGroups(join(out, "trajectories", String(record?.file)));
}

/** Each scenario of each seed by itself: what is compared are pairs of them. */
function of(what: (seed: number) => string, which: (seed: number, scenario: unknown) => boolean) {
  return seeds.flatMap((seed) =>
    (results[what(seed)] ?? [])
      .filter(({ scenario }) => which(seed, scenario))
      .map((group) => ({ ...group, scenario: { seed, scenario: group.scenario } })),
  );
}

function show(): void {
  const done = arms.filter((arm) => seeds.some((seed) => `${arm} ${seed}` in results));
  const slices = [
    ["all", () => true],
    ["without gold", (seed, scenario) => !hasGold(seed, scenario, colours)],
  ] as const satisfies [string, (seed: number, scenario: unknown) => boolean][];
  for (const [slice, which] of slices) {
    const untrained = of(() => "base answers", which);
    const answers = (arm: Arm) => of((seed) => `${arm} ${seed}`, which);
    const against = (from: readonly TrajectoryGroup[], arm: Arm) => {
      const trained = answers(arm);
      const { before, after, low, high } = compare(from, trained);
      return [before, after, low, high].map((value) => Number(value.toFixed(3)));
    };
    console.log(`\nheld-out scenarios, ${slice}: before, after, 95% interval of the difference`);
    for (const arm of done) console.log(`base → ${arm}`, ...against(untrained, arm));
    for (const arm of ["self", "fifth"] as const) {
      if (done.includes(arm) && done.includes("gold"))
        console.log(`gold → ${arm}`, ...against(answers("gold"), arm));
    }
    if (done.includes("self") && done.includes("fifth"))
      console.log("fifth → self", ...against(answers("fifth"), "self"));
    for (const arm of done) {
      const { before, after, low, high } = compare(
        of(() => "base judges", which),
        of((seed) => `${arm} ${seed} judges`, which),
      );
      console.log(
        `judge, base → ${arm}`,
        ...[before, after, low, high].map((value) => value.toFixed(3)),
      );
    }
  }
  for (const arm of done) {
    const by = seeds.map((seed) => results[`${arm} ${seed}`]).filter((one) => one !== undefined);
    console.log(`${arm} by seed`, ...by.map((groups) => meanOf(groups).toFixed(3)));
  }
}

function meanOf(groups: readonly TrajectoryGroup[]): number {
  const rewards = groups.flatMap(({ trajectories }) =>
    trajectories.flatMap(({ reward }) => reward ?? []),
  );
  return rewards.reduce((sum, one) => sum + one, 0) / rewards.length;
}
