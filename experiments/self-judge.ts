// `pnpm experiment self-judge [--seeds 1,2,3] [--arms gold,self,fifth,control] [--steps …] [--rate …] [--out FOLDER]` —
// a policy that judges itself, with gold for a fifth of the scenarios, beside gold for all, the gold fifth alone, and a
// control whose rewards are shuffled. The base is made first (experiments/self-judge/make_base.py) and kept. What is
// done stands in FOLDER/results.json, and the same command goes on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile, readFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compare, evaluationTable, Hone, type TrajectoryGroup } from "@hone/client";
import { trainRun } from "@hone/client/run";
import { HoneError } from "@hone/core";
import { findEnvironment, startServer } from "@hone/server";
import { openResults } from "./inbox/results.ts";
import {
  answers,
  arms as allArms,
  hasGold,
  judgements,
  taskOf,
  type Arm,
  type Words,
} from "./self-judge/words.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    arms: { type: "string", default: allArms.join(",") },
    steps: { type: "string", default: "80" },
    rate: { type: "string", default: "1e-3" },
    out: { type: "string", default: "runs/self-judge" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(
    "pnpm experiment self-judge [--seeds 1,2,3] [--arms gold,self,fifth,control] [--steps 80] [--rate 1e-3] [--out runs/self-judge]",
  );
  process.exit(0);
}
const seeds = values.seeds.split(",").map(Number);
const arms = values.arms.split(",") as Arm[];
const training = { steps: Number(values.steps), learningRate: Number(values.rate) };
const { folder, results, keep } = await openResults(values.out);
const base = join(folder, "base");
if (!existsSync(join(base, "training.json"))) {
  const script = fileURLToPath(new URL("self-judge/make_base.py", import.meta.url));
  execFileSync(await findEnvironment(), [script, base], {
    stdio: ["ignore", "inherit", "inherit"],
  });
}
const words = JSON.parse(await readFile(join(base, "words.json"), "utf8")) as Words;

const missing = seeds.flatMap((seed) =>
  arms.flatMap((arm) => (`${arm} ${seed} judges` in results ? [] : [{ arm, seed }])),
);
if (missing.length > 0) {
  const server = await startServer({ base, port: 0, dataDir: join(folder, "server") });
  try {
    const hone = new Hone({ baseURL: server.url, apiKey: server.key });
    for (const { arm, seed } of missing) await measure(hone, arm, seed);
  } finally {
    await server.close();
  }
}
show();

/** Trains one arm, and keeps what the trained policy answers and how it judges. */
async function measure(hone: Hone, arm: Arm, seed: number): Promise<void> {
  const began = performance.now();
  const name = `${arm}-${seed}`;
  let ended = "all steps";
  try {
    await trainRun(taskOf(arm, seed, words, training), {
      ...{ name, out: join(folder, "runs", name), seed, hone, shuffleRewards: arm === "control" },
    });
  } catch (error) {
    // What is learnt has no rewards that differ: with gold for a fifth alone a run ends there. The policy stands.
    if (!HoneError.isInstance(error) || error.code !== "nothing_trained") throw error;
    ended = error.code;
  }
  const model = await hone.model({ name });
  await keep("base", async () => await answers(model.at(0), words));
  await keep("base judges", async () => await judgements(model.at(0), words));
  await keep(`${arm} ${seed}`, async () => await answers(model, words));
  await keep(`${arm} ${seed} judges`, async () => await judgements(model, words));
  const seconds = Math.round((performance.now() - began) / 1000);
  const line = { arm, seed, ...training, ended, seconds, load: Number(loadavg()[0]?.toFixed(1)) };
  await appendFile(join(folder, "times.jsonl"), `${JSON.stringify(line)}\n`);
  console.log(JSON.stringify(line));
}

/** Of the names without gold (or all): what was measured, a scenario for each name and seed. */
function without(key: (seed: number) => string, all = false): TrajectoryGroup[] {
  return seeds.flatMap((seed) =>
    (results[key(seed)] ?? [])
      .filter(({ scenario }) => all || !hasGold(seed, String(scenario), words))
      .map((group) => ({ ...group, scenario: { seed, name: group.scenario } })),
  );
}

function show(): void {
  const of = (arm: Arm, judges = "") => without((seed) => `${arm} ${seed}${judges}`);
  const difference = (from: readonly TrajectoryGroup[], to: readonly TrajectoryGroup[]) => {
    const { before, after, low, high } = compare(from, to);
    const [b, a, l, h] = [before, after, low, high].map((value) => value.toFixed(3));
    return { before: b, after: a, interval: `[${l}, ${h}]` };
  };
  const done = arms.filter((arm) => of(arm).length > 0);
  const untrained = without(() => "base");
  const pairs: [Arm, Arm][] = [
    ["gold", "self"],
    ["fifth", "self"],
    ["control", "self"],
  ];
  console.log("\nRight answers, names without gold");
  console.table([
    ...done.map((arm) => ({ of: `base → ${arm}`, ...difference(untrained, of(arm)) })),
    ...pairs
      .filter((pair) => pair.every((arm) => done.includes(arm)))
      .map(([from, to]) => ({ of: `${from} → ${to}`, ...difference(of(from), of(to)) })),
  ]);
  console.log("Judgements: a right above a wrong word, names without gold");
  console.table(
    done.map((arm) => ({
      of: `base → ${arm}`,
      ...difference(
        without(() => "base judges"),
        of(arm, " judges"),
      ),
    })),
  );
  console.log("Each seed, names without gold");
  const each = Object.fromEntries(
    seeds.flatMap((seed) =>
      done.flatMap((arm) =>
        ["", " judges"].flatMap((what) => {
          const key = `${arm} ${seed}${what}`;
          const groups = (results[key] ?? []).filter(
            ({ scenario }) => !hasGold(seed, String(scenario), words),
          );
          return groups.length > 0 ? [[key, groups] as const] : [];
        }),
      ),
    ),
  );
  console.table(
    evaluationTable(each).map(({ name, mean, low, high }) => ({
      of: name,
      mean: mean.toFixed(3),
      interval: `[${low.toFixed(3)}, ${high.toFixed(3)}]`,
    })),
  );
}
