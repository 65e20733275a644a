// `pnpm experiment ruler-judge [--seeds 1,2,3] [--arms …] [--out FOLDER]` — judges that `train-judge` trains in a form
// of its own, asked by RULER as `hone/NAME`, with RULER's own question, before and after; controls whose labels have
// changed places, and judges that are trained on RULER's question itself. The base is made first
// (experiments/ruler-judge/make_base.py) and kept. What is done stands in FOLDER/results.json, and the same command goes
// on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Hone, type TrajectoryGroup } from "@hone/client";
import { trainJudge } from "@hone/recipes";
import { rulerScoreGroup } from "@hone/ruler";
import { findEnvironment, startServer } from "@hone/server";
import { openResults } from "./inbox/results.ts";
import { rightAnswers, writeCorpus } from "./ruler-judge/corpus.ts";
import { groupsOf, inOrder } from "./ruler-judge/groups.ts";
import { keyOf, rowsOf, type Way } from "./ruler-judge/summary.ts";
import { judgeData, shortPrompt } from "./train-judge/data.ts";

const allArms = ["pointwise-sft", "pairwise-sft", "listwise-sft", "pointwise-grpo", "pairwise-grpo"]
  .map((arm) => [arm, `${arm}-control`])
  .flat();
const ways: readonly Way[] = ["sampled", "greedy"];
const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    arms: { type: "string", default: allArms.slice(0, 7).join(",") },
    groups: { type: "string", default: "120" },
    steps: { type: "string", default: "30" },
    epochs: { type: "string", default: "4" },
    rate: { type: "string", default: "2e-3" },
    apart: { type: "boolean", default: false },
    out: { type: "string" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(
    "pnpm experiment ruler-judge [--seeds 1,2,3] [--arms pointwise-sft,pointwise-sft-control,…] [--groups 120] [--steps 30] [--epochs 4] [--rate 2e-3] [--apart] [--out runs/ruler-judge]",
  );
  console.log(`Arms: ${allArms.join(", ")}.`);
  console.log(
    "--apart: RULER's marks and scores are not made alike those of the short form (runs/ruler-judge-apart).",
  );
  process.exit(0);
}
const seeds = values.seeds.split(",").map(Number);
const arms = values.arms.split(",");
const unknown = arms.find((arm) => !allArms.includes(arm));
if (unknown !== undefined) {
  console.error(`There is no arm "${unknown}". Use some of: ${allArms.join(", ")}.`);
  process.exit(2);
}
const { folder, results, keep } = await openResults(
  values.out ?? (values.apart ? "runs/ruler-judge-apart" : "runs/ruler-judge"),
);
const base = join(folder, "base");
if (!existsSync(join(base, "training.json"))) {
  const corpus = join(folder, "corpus.jsonl");
  await writeCorpus(corpus, 1_000_003, 12_000);
  const script = fileURLToPath(new URL("ruler-judge/make_base.py", import.meta.url));
  const args = [script, corpus, base, ...(values.apart ? ["--apart"] : [])];
  execFileSync(await findEnvironment(), args, { stdio: ["ignore", "inherit", "inherit"] });
}

const missing = arms.flatMap((arm) =>
  seeds.flatMap((seed) => (keyOf(arm, seed, "greedy") in results ? [] : [{ arm, seed }])),
);
if (missing.length > 0) {
  const server = await startServer({ base, port: 0, dataDir: join(folder, "server") });
  try {
    process.env["HONE_URL"] = server.url;
    process.env["HONE_API_KEY"] = server.key;
    // The attempts' ids, and so the questions, are the same in each start.
    process.env["HONE_RULER_SECRET"] = "of-the-experiment";
    const hone = new Hone({ baseURL: server.url, apiKey: server.key });
    for (const { arm, seed } of missing) await measure(hone, arm, seed);
  } finally {
    await server.close();
  }
}
for (const way of ways) {
  console.log(`\nPairs that RULER's scores order rightly, ${way}`);
  console.table(rowsOf(results, arms, seeds, way));
}

/** Trains one judge, and keeps what it says to RULER before and after. */
async function measure(hone: Hone, arm: string, seed: number): Promise<void> {
  const began = performance.now();
  const { name, own } = arm.startsWith("listwise")
    ? await trainOnQuestions(hone, arm, seed)
    : await trainInOwnForm(hone, arm, seed);
  const line = {
    ...{ arm, seed, own, seconds: Math.round((performance.now() - began) / 1000) },
    load: Number(loadavg()[0]?.toFixed(1)),
  };
  await appendFile(join(folder, "judges.jsonl"), `${JSON.stringify(line)}\n`);
  for (const way of ways) {
    const ask = (judge: string) => async () => await asked(judge, seed, way);
    await keep(keyOf("base", seed, way), ask(`hone/${name}@0`));
    await keep(keyOf(arm, seed, way), ask(`hone/${name}`));
  }
  const rows = ways.map((way) => rowsOf(results, [arm], [seed], way)[0]?.["together"]);
  console.log(JSON.stringify({ ...line, ruler: rows }));
}

/** As train-judge does it: the judge is asked about one answer or two, in a short form, and answers with a tag. */
async function trainInOwnForm(hone: Hone, arm: string, seed: number) {
  const [mode, method, control] = arm.split("-") as [
    ...["pointwise" | "pairwise", "sft" | "grpo", "control"?],
  ];
  const name = `${arm}-${seed}`;
  const report = await trainJudge({
    ...{ mode, method, seed, hone, name, out: join(folder, "runs", name) },
    shuffleLabels: control !== undefined,
    data: judgeData(mode, mode === "pointwise" ? 300 : 600, seed),
    ...{ heldOutShare: 0.25, learningRate: Number(values.rate), prompt: shortPrompt },
    answerTokens: 8,
    ...(method === "sft"
      ? { epochs: Number(values.epochs), batchSize: 32 }
      : {
          run: {
            ...{ steps: Number(values.steps), groupsPerStep: 12, groupSize: 8, concurrency: 96 },
            train: { warmupSteps: 2, normalizerTokens: 4, maxTokensPerMicroBatch: 4096 },
          },
        }),
  });
  const { before, after } = report.figures[report.metric]!;
  return { name, own: [before.mean, after.mean] };
}

/** By imitation of right answers to RULER's own question: what can be had where the form is the same. */
async function trainOnQuestions(hone: Hone, arm: string, seed: number) {
  const name = `${arm}-${seed}`;
  const model = await hone.model({ name, seed });
  await model.sft(rightAnswers(3_000_003 + seed, 225, arm.endsWith("control")), {
    ...{ seed, learningRate: Number(values.rate), epochs: Number(values.epochs), batchSize: 32 },
  });
  return { name, own: null };
}

/** Groups that nobody has trained on, judged by RULER: the share of pairs in order, and whether it had an answer at once. */
async function asked(judge: string, seed: number, way: Way): Promise<TrajectoryGroup[]> {
  const groups = groupsOf(7_000_003 + seed, Number(values.groups));
  return await Promise.all(
    groups.map(async ({ group, worth }, at) => {
      const { trajectories, judgement } = await rulerScoreGroup(group, judge, {
        ...{ cache: false, concurrency: 40, timeoutMs: 600_000, deadlineMs: 1_200_000 },
        parameters: {
          ...{ seed: 1000 * seed + at, max_tokens: 200 },
          ...(way === "greedy" && { temperature: 0 }),
        },
      });
      const scores = trajectories.map(({ reward }) => reward);
      const valid = Number(judgement.status === "judged" && judgement.repairs === 0);
      const metrics = { in_order: inOrder(scores, worth), valid };
      const [first] = trajectories;
      return { ...group, trajectories: [{ ...first!, reward: metrics.in_order, metrics }] };
    }),
  );
}
