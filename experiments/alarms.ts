// `pnpm experiment alarms [--seeds 1,2,…,10] [--arms clean,word,flattery,repeated] [--steps 24] [--rate 2e-3] [--out FOLDER]`
// — whether a rigged reward raises an alarm before the run ends, and a clean one none. What is done stands in
// FOLDER/alarms.jsonl, a line for each run, and the same command goes on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile, mkdir, readFile, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Hone } from "@hone/client";
import { trainRun } from "@hone/client/run";
import { startServer } from "@hone/server";
import { findEnvironment } from "../packages/server/src/setup/environment.ts";
import { arms as allArms, taskOf, type Arm, type Colours } from "./alarms/rigged.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3,4,5,6,7,8,9,10" },
    arms: { type: "string", default: allArms.join(",") },
    steps: { type: "string", default: "24" },
    rate: { type: "string", default: "2e-3" },
    out: { type: "string", default: "runs/alarms" },
  },
});

interface Line {
  arm: Arm;
  seed: number;
  /** Code and step of each alarm, in their order. */
  alarms: string[];
  /** The held-out score by truth: of the base, of the trained policy. */
  truth: [number | null, number | null];
  reward: [number | null, number | null];
  phases: string;
  seconds: number;
  load: number;
}

const folder = resolve(values.out);
await mkdir(folder, { recursive: true });
const base = join(folder, "base");
if (!existsSync(join(base, "model.safetensors"))) {
  const script = fileURLToPath(new URL("alarms/make_base.py", import.meta.url));
  execFileSync(await findEnvironment(), [script, base], { stdio: "inherit" });
}
const colours = JSON.parse(await readFile(join(base, "colours.json"), "utf8")) as Colours;
const file = join(folder, "alarms.jsonl");
const text = existsSync(file) ? await readFile(file, "utf8") : "";
const lines = text.split("\n").flatMap((line) => (line ? [JSON.parse(line) as Line] : []));

const server = await startServer({ base, port: 0, dataDir: join(folder, "server") });
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  for (const seed of values.seeds.split(",").map(Number)) {
    for (const arm of values.arms.split(",") as Arm[]) {
      if (lines.some((line) => line.arm === arm && line.seed === seed)) continue;
      const line = await runOf(hone, arm, seed);
      lines.push(line);
      await appendFile(file, `${JSON.stringify(line)}\n`);
      console.log(JSON.stringify(line));
    }
  }
} finally {
  await server.close();
}
show();

async function runOf(hone: Hone, arm: Arm, seed: number): Promise<Line> {
  const began = performance.now();
  // A run that was cut off begins again, under another name: its time is to be that of a whole one.
  const name = `${arm}-${seed}-${Date.now().toString(36)}`;
  const out = join(folder, "runs", `${arm}-${seed}`);
  await rm(out, { recursive: true, force: true });
  const task = taskOf(arm, colours, Number(values.steps), Number(values.rate));
  const { watch } = await trainRun(task, { name, out, seed, hone, ungated: true });
  const metrics = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
  const records = metrics.map((one) => JSON.parse(one) as Scored);
  const scores = (metric: string): [number | null, number | null] => {
    const of = (label: string) =>
      records.findLast((one) => one.label === label && one.metric === metric)?.score?.mean ?? null;
    return [of("base"), of("trained")];
  };
  return {
    ...{ arm, seed, alarms: watch.alarms.map(({ code, step }) => `${code}@${step}`) },
    ...{ truth: scores("held_out_judge"), reward: scores("reward") },
    phases: watch.phases.map((one) => `${one.name} ${one.from}-${one.to}`).join(", "),
    seconds: Math.round((performance.now() - began) / 1000),
    load: Number((loadavg()[0] ?? 0).toFixed(1)),
  };
}

interface Scored {
  label?: string;
  metric?: string;
  score?: { mean: number } | null;
}

function show(): void {
  const median = (all: readonly number[]) =>
    all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
  const means = (all: readonly (number | null)[]) => {
    const known = all.flatMap((one) => one ?? []);
    return (known.reduce((sum, one) => sum + one, 0) / known.length).toFixed(2);
  };
  const table = allArms.flatMap((arm) => {
    const of = lines.filter((line) => line.arm === arm);
    if (of.length === 0) return [];
    const firsts = of.flatMap(({ alarms: [first] }) =>
      first ? [Number(first.split("@")[1])] : [],
    );
    const codes = of.flatMap(({ alarms }) => [...new Set(alarms.map((one) => one.split("@")[0]))]);
    const counts = [...new Set(codes)].map(
      (code) => `${code} ${codes.filter((one) => one === code).length}`,
    );
    return [
      {
        ...{ arm, runs: of.length, "with an alarm": firsts.length },
        "first, median step": median(firsts),
        "runs with": counts.join(", "),
        reward: `${means(of.map(({ reward }) => reward[0]))} → ${means(of.map(({ reward }) => reward[1]))}`,
        truth: `${means(of.map(({ truth: one }) => one[0]))} → ${means(of.map(({ truth: one }) => one[1]))}`,
        seconds: median(of.map(({ seconds }) => seconds)),
      },
    ];
  });
  console.table(table);
}
