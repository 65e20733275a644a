// `pnpm experiment train-judge [--seeds 1,2,3] [--methods …] [--modes …] [--out FOLDER]` — judges trained by each
// method on answers whose worth a program knows, on a small base that judges badly, with a control whose labels have
// changed places. The base is made first (experiments/train-judge/make_base.py) and kept. What is done stands in
// FOLDER/results.json, and the same command goes on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Hone } from "@hone/client";
import { trainJudge, type JudgeTraining } from "@hone/recipes";
import { findEnvironment, startServer } from "@hone/server";
import { judgeData, shortPrompt } from "./train-judge/data.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    controls: { type: "string", default: "1" },
    modes: { type: "string", default: "pointwise,pairwise" },
    methods: { type: "string", default: "sft,grpo,bradley-terry" },
    steps: { type: "string", default: "30" },
    epochs: { type: "string", default: "4" },
    rate: { type: "string", default: "2e-3" },
    out: { type: "string", default: "runs/train-judge" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(
    "pnpm experiment train-judge [--seeds 1,2,3] [--controls 1] [--modes …] [--methods …]",
  );
  process.exit(0);
}
type Mode = "pointwise" | "pairwise";
type Method = "sft" | "grpo" | "bradley-terry";
interface Arm {
  mode: Mode;
  method: Method;
  seed: number;
  control: boolean;
}
const out = resolve(values.out);
await mkdir(out, { recursive: true });
const base = join(out, "base");
if (!existsSync(join(base, "training.json"))) {
  const script = fileURLToPath(new URL("train-judge/make_base.py", import.meta.url));
  execFileSync(await findEnvironment(), [script, base], {
    stdio: ["ignore", "inherit", "inherit"],
  });
}
const resultsFile = join(out, "results.json");
const results: Record<string, JudgeTraining & { seconds: number; load: number }> = existsSync(
  resultsFile,
)
  ? (JSON.parse(await readFile(resultsFile, "utf8")) as typeof results)
  : {};

const seeds = values.seeds.split(",").map(Number);
const controls = values.controls.split(",").map(Number);
const arms: Arm[] = seeds.flatMap((seed) =>
  [false, ...(controls.includes(seed) ? [true] : [])].flatMap((control) =>
    (values.methods.split(",") as Method[]).flatMap((method) =>
      (values.modes.split(",") as Mode[]).map((mode) => ({ mode, method, seed, control })),
    ),
  ),
);
const server = await startServer({ base, port: 0, dataDir: join(out, "server") });
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  for (const arm of arms) {
    const key = [arm.mode, arm.method, arm.seed, ...(arm.control ? ["control"] : [])].join("-");
    if (key in results) continue;
    const began = performance.now();
    const report = await train(arm, key, hone);
    const seconds = Math.round((performance.now() - began) / 1000);
    results[key] = { ...report, seconds, load: Number(loadavg()[0]?.toFixed(1)) };
    await writeFile(`${resultsFile}.partial`, JSON.stringify(results, null, 1));
    await rename(`${resultsFile}.partial`, resultsFile);
    console.log(JSON.stringify(row(key)));
  }
} finally {
  await server.close();
}
console.table(Object.keys(results).map(row));

async function train({ mode, method, seed, control }: Arm, key: string, hone: Hone) {
  const supervised = { epochs: Number(values.epochs), batchSize: 32 };
  return await trainJudge({
    ...{ mode, method, seed, hone, name: key, out: join(out, key), shuffleLabels: control },
    // Another set for each seed. Of pointwise lines each has three answers.
    data: judgeData(mode, mode === "pointwise" ? 300 : 600, seed),
    heldOutShare: 0.25,
    learningRate: Number(values.rate),
    ...(method === "bradley-terry" ? supervised : { prompt: shortPrompt, answerTokens: 8 }),
    ...(method === "sft" && supervised),
    ...(method === "grpo" && {
      run: {
        ...{ steps: Number(values.steps), groupsPerStep: 12, groupSize: 8, concurrency: 96 },
        train: { warmupSteps: 2, normalizerTokens: 4, maxTokensPerMicroBatch: 4096 },
      },
    }),
  });
}

function row(key: string) {
  const { metric, figures, outcome, seconds, load } = results[key]!;
  const shown = (name: string) => {
    const figure = figures[name];
    if (!figure) return {};
    const { before, after, difference } = figure;
    const digits = (one: number) => Number(one.toFixed(3));
    return {
      before: digits(before.mean),
      after: digits(after.mean),
      difference: `[${digits(difference.low)}, ${digits(difference.high)}]`,
    };
  };
  const after = (name: string) => Number(figures[name]?.after.mean.toFixed(3) ?? Number.NaN);
  return {
    ...{ arm: key, ...shown(metric), outcome, given: after("judge/accuracy_given") },
    ...{ swapped: after("judge/accuracy_swapped"), bias: after("judge/position_bias") },
    ...{ parsed: after("judge/parse_rate"), mae: after("judge/mae") },
    ...{ pairs: after("judge/pair_accuracy"), seconds, load },
  };
}
