// `pnpm experiment email [--seeds 1,2,3] [--arms gold,ruler,control] [--steps N] [--sft N] [--out FOLDER]` — the email agent, trained by the gold
// reward, by RULER with the program that follows its rubric, and, as a control, by gold rewards that change places
// within their group: all with the settings of the example, over seeds, on the same held-out questions. With --sft
// every arm begins with as many transcripts of the expert. What is done stands in FOLDER/results.json, and the same
// command goes on there.
import { loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  compare,
  evaluationTable,
  gather,
  Hone,
  shuffleRewards,
  type Model,
  type TrajectoryGroup,
} from "@hone/client";
import { startServer } from "@hone/server";
import task from "../examples/email-agent/src/task.ts";
import { openResults } from "./inbox/results.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    arms: { type: "string", default: "gold,ruler,control" },
    steps: { type: "string" },
    sft: { type: "string", default: "0" },
    out: { type: "string", default: "runs/email" },
  },
});
const { groupsPerStep = 8, groupSize = 8, answerTokens = 40, concurrency } = task.options ?? {};
const { learningRate, schedule, train } = task.options ?? {};
const steps = Number(values.steps ?? task.options?.steps);
const arms = [
  { name: "gold", reward: "gold", shuffled: false },
  { name: "ruler", reward: "ruler", shuffled: false },
  { name: "control", reward: "gold", shuffled: true },
] as const;
type Arm = (typeof arms)[number];
const ownSettings = (reward: Arm["reward"]) => ({
  ...{ turns: 6, agent: "openai", judge: "", sft: Number(values.sft), mcp: false, reward },
});
const signal = new AbortController().signal;
const metric = "correct";
const { folder, results, keep } = await openResults(values.out);

const server = await startServer({
  base: fileURLToPath(new URL("../models/hone-email-1m", import.meta.url)),
  dataDir: join(folder, "server"),
});
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  await keep("base", async () => answered(await hone.model({ name: "base" })));
  for (const seed of values.seeds.split(",").map(Number)) {
    for (const arm of arms.filter(({ name }) => values.arms.split(",").includes(name))) {
      await keep(`${arm.name} ${seed}`, async () => answered(await trained(hone, arm, seed)));
    }
  }
} finally {
  await server.close();
}
console.table(evaluationTable(results, { metric }));
console.table(evaluationTable(results, { metric: "sourcesRight" }));
// Over the seeds: a question's score is its mean, and the interval is over questions.
const measured = arms.filter(({ name }) =>
  Object.keys(results).some((key) => key.startsWith(`${name} `)),
);
const gains = new Map(
  measured.map(({ name }) => {
    const compared = compare(results["base"] ?? [], pooled(name), { metric });
    console.log(said(`base → ${name}`, compared));
    return [name, compared.difference];
  }),
);
const [gold, ruler] = [gains.get("gold"), gains.get("ruler")];
if (gold !== undefined && ruler !== undefined) {
  console.log(said("gold → ruler", compare(pooled("gold"), pooled("ruler"), { metric })));
  console.log(`RULER's share of gold's gain: ${(ruler / gold).toFixed(3)}`);
}

async function trained(hone: Hone, { name, reward, shuffled }: Arm, seed: number): Promise<Model> {
  const began = performance.now();
  const model = await hone.model({ name: `${name}-${seed}`, seed });
  const settings = ownSettings(reward);
  await task.warmUp?.(model, { settings, seed, signal });
  for await (const batch of model.batches(task.train, { groupsPerStep, steps, seed })) {
    const played = await gather(model, rolloutBy(reward), batch.scenarios, {
      ...{ groupSize, concurrency, timeoutMs: 600_000 },
    });
    const how = { mode: "train", policy: model, concurrency: concurrency ?? 32, signal } as const;
    const scored = (await task.score?.(played, { ...how, alsoTrain() {} })) ?? played;
    const groups = shuffled ? shuffleRewards(scored, seed * 1_000_003 + batch.step) : scored;
    const { groups: sent } = await model.train(groups, {
      ...{ ...train, learningRate, schedule, batch },
    });
    const right = meanOf(groups, ({ metrics }) => metrics[metric] ?? 0);
    const differ = sent.filter((one) => one.reason === null).length;
    console.log(
      `${name}, seed ${seed}, step ${batch.trained + 1}/${steps}: right ${right.toFixed(3)}, ${differ} groups differ`,
    );
  }
  const minutes = (performance.now() - began) / 60_000;
  console.log(
    `${name}, seed ${seed}: ${minutes.toFixed(1)} minutes at a load of ${loadavg()[1]?.toFixed(1)}`,
  );
  return model;
}

/** All held-out questions, twice each, without the words: only what is measured is kept. */
async function answered(model: Model): Promise<TrajectoryGroup[]> {
  const groups = await gather(model, rolloutBy("gold"), [...task.heldOut], {
    ...{ groupSize: 2, mode: "eval", concurrency, timeoutMs: 600_000 },
  });
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({ ...one, messages: [], histories: [] })),
  }));
}

function rolloutBy(reward: Arm["reward"]) {
  const how = { temperature: 1, answerTokens, contextTokens: null };
  return (model: Parameters<typeof task.rollout>[0], question: (typeof task.train)[number]) =>
    task.rollout(model, question, { ...how, settings: ownSettings(reward) });
}

function pooled(name: Arm["name"]): TrajectoryGroup[] {
  return (results["base"] ?? []).map((group, at) => ({
    ...group,
    trajectories: Object.entries(results).flatMap(([key, groups]) =>
      key.startsWith(`${name} `) ? (groups[at]?.trajectories ?? []) : [],
    ),
  }));
}

function meanOf(
  groups: readonly TrajectoryGroup[],
  value: (one: TrajectoryGroup["trajectories"][number]) => number,
): number {
  const all = groups.flatMap(({ trajectories }) => trajectories.map(value));
  return all.reduce((sum, one) => sum + one, 0) / all.length;
}

function said(what: string, { before, after, low, high }: ReturnType<typeof compare>): string {
  const [a, b, c, d] = [before, after, low, high].map((value) => value.toFixed(3));
  return `${what}: ${a} → ${b}, difference [${c}, ${d}]`;
}
