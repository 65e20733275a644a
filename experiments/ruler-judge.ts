// `pnpm experiment ruler-judge [--seeds 1,2,3] [--arms …] [--out FOLDER]` — judges that `train-judge` trains in the form
// of its own, asked by RULER as `hone/NAME`, through RULER's own prompt, before and after; with a control whose labels
// have changed places. The base is made first (experiments/ruler-judge/make_base.py) and kept. What is done stands in
// FOLDER/results.json, and the same command goes on there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compare, Hone, type TrajectoryGroup } from "@hone/client";
import { trainJudge } from "@hone/recipes";
import { rulerScoreGroup } from "@hone/ruler";
import { findEnvironment, startServer } from "@hone/server";
import { openResults } from "./inbox/results.ts";
import { writeCorpus } from "./ruler-judge/corpus.ts";
import { groupsOf, inOrder } from "./ruler-judge/groups.ts";
import { judgeData, shortPrompt } from "./train-judge/data.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    arms: {
      type: "string",
      default:
        "pointwise-sft,pairwise-sft,pointwise-sft-control,pairwise-sft-control,pointwise-grpo,pairwise-grpo",
    },
    groups: { type: "string", default: "80" },
    steps: { type: "string", default: "30" },
    epochs: { type: "string", default: "4" },
    rate: { type: "string", default: "2e-3" },
    out: { type: "string", default: "runs/ruler-judge" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(
    "pnpm experiment ruler-judge [--seeds 1,2,3] [--arms pointwise-sft,…] [--groups 80] [--out runs/ruler-judge]",
  );
  process.exit(0);
}
const seeds = values.seeds.split(",").map(Number);
const arms = values.arms.split(",");
const { folder, results, keep } = await openResults(values.out);
const base = join(folder, "base");
if (!existsSync(join(base, "training.json"))) {
  const corpus = join(folder, "corpus.jsonl");
  await writeCorpus(corpus, 1_000_003, 12_000);
  const script = fileURLToPath(new URL("ruler-judge/make_base.py", import.meta.url));
  execFileSync(await findEnvironment(), [script, corpus, base], {
    stdio: ["ignore", "inherit", "inherit"],
  });
}

/** What a judge said to RULER; the base says the same under each name. */
const keyOf = (arm: string, seed: number, greedy: boolean) =>
  [arm, seed, greedy ? "greedy" : "sampled"].join(" ");
const missing = seeds.flatMap((seed) =>
  arms.flatMap((arm) => (keyOf(arm, seed, true) in results ? [] : [{ arm, seed }])),
);
if (missing.length > 0) {
  const server = await startServer({ base, port: 0, dataDir: join(folder, "server") });
  try {
    process.env["HONE_URL"] = server.url;
    process.env["HONE_API_KEY"] = server.key;
    // The attempts' ids, and so the prompts, are the same in each start.
    process.env["HONE_RULER_SECRET"] = "of-the-experiment";
    const hone = new Hone({ baseURL: server.url, apiKey: server.key });
    for (const { arm, seed } of missing) await measure(hone, arm, seed);
  } finally {
    await server.close();
  }
}
show();

/** Trains one judge in its own form, and keeps what it says to RULER before and after. */
async function measure(hone: Hone, arm: string, seed: number): Promise<void> {
  const began = performance.now();
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
  for (const greedy of [false, true]) {
    const ask = (judge: string) => async () => await asked(judge, seed, greedy);
    await keep(keyOf("base", seed, greedy), ask(`hone/${name}@0`));
    await keep(keyOf(arm, seed, greedy), ask(`hone/${name}`));
  }
  const own = report.figures[report.metric];
  const line = {
    ...{
      arm,
      seed,
      policy: report.policy,
      own,
      seconds: Math.round((performance.now() - began) / 1000),
    },
    load: Number(loadavg()[0]?.toFixed(1)),
  };
  await appendFile(join(folder, "times.jsonl"), `${JSON.stringify(line)}\n`);
  console.log(JSON.stringify(line));
}

/** Groups that nobody has trained on, judged by RULER: the share of pairs in order, a group each. */
async function asked(judge: string, seed: number, greedy: boolean): Promise<TrajectoryGroup[]> {
  const groups = groupsOf(7_000_003 + seed, Number(values.groups));
  return await Promise.all(
    groups.map(async ({ group, worth }) => {
      const { trajectories, judgement } = await rulerScoreGroup(group, judge, {
        ...{ cache: false, swallowErrors: false, timeoutMs: 600_000, deadlineMs: 1_200_000 },
        parameters: { seed, max_tokens: 200, ...(greedy && { temperature: 0 }) },
      });
      const scores = trajectories.map(({ reward }) => Number(reward));
      const [first] = trajectories;
      const metrics = { in_order: inOrder(scores, worth), repairs: judgement.repairs };
      return { ...group, trajectories: [{ ...first!, reward: metrics.in_order, metrics }] };
    }),
  );
}

function show(): void {
  const figures = (from: readonly TrajectoryGroup[], to: readonly TrajectoryGroup[]) => {
    const { before, after, low, high } = compare(from, to, { metric: "in_order" });
    const [b, a, l, h] = [before, after, low, high].map((value) => value.toFixed(2));
    return `${b} → ${a} [${l}, ${h}]`;
  };
  for (const greedy of [false, true]) {
    console.log(
      `\nPairs that RULER's scores order rightly, ${greedy ? "greedy" : "as RULER asks"}`,
    );
    const of = (arm: string, seed: number) => results[keyOf(arm, seed, greedy)] ?? [];
    console.table(
      arms.map((arm) => {
        const done = seeds.filter((seed) => of(arm, seed).length > 0);
        const all = (name: string) => done.flatMap((seed) => of(name, seed));
        const each = done.map((seed) => [`seed ${seed}`, figures(of("base", seed), of(arm, seed))]);
        const together = done.length > 0 && { together: figures(all("base"), all(arm)) };
        return { arm, ...(Object.fromEntries(each) as object), ...together };
      }),
    );
  }
}
