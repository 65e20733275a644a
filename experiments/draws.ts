// `pnpm experiment draws [--seeds 1,2,3] [--rollouts N]` — which scenarios a step draws, where half of them teach
// nothing: a quarter is hopeless, a quarter is solved. Plain batches, `fillBatch`, a curriculum, and both, with the
// same number of rollouts each. The task is learnt in minutes by the base of the repository: to say one word.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fillBatch, gather, Hone, type RolloutModel } from "@hone/client";
import { startServer } from "@hone/server";
import OpenAI from "openai";
import { fileURLToPath } from "node:url";

interface Scenario {
  prompt: string;
  reward?: number;
}

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    rollouts: { type: "string", default: "1024" },
  },
});
const budget = Number(values.rollouts);
const ways = [
  { name: "plain", fill: false, curriculum: false },
  { name: "fill", fill: true, curriculum: false },
  { name: "curriculum", fill: false, curriculum: true },
  { name: "both", fill: true, curriculum: true },
];
const spoiled = [{ reward: 0 }, {}, { reward: 1 }, {}];
const train = Array.from({ length: 40 }, (_, n): Scenario => ({
  prompt: `Say a word. ${n}`,
  ...spoiled[n % 4],
}));
const heldOut = Array.from({ length: 32 }, (_, n): Scenario => ({
  prompt: `Say a word. ${n + 40}`,
}));

async function rollout(model: RolloutModel, { prompt, reward }: Scenario) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create({
    ...{ model: connection.model, max_tokens: 4 },
    messages: [{ role: "user", content: prompt }],
  });
  const yes = completion.choices[0]?.message.content === "yes" ? 1 : 0;
  return { reward: reward ?? yes, metrics: { yes } };
}

/** Trains until the rollouts are used up. */
async function run(hone: Hone, seed: number, { name, fill, curriculum }: (typeof ways)[number]) {
  const model = await hone.model({ name: `${name}-${seed}`, seed });
  const play = (scenarios: readonly Scenario[]) =>
    gather(model, rollout, scenarios, { groupSize: 16, concurrency: 64 });
  let rollouts = 0;
  let steps = 0;
  let differing = 0;
  for await (const batch of model.batches(train, {
    groupsPerStep: 4,
    steps: 1000,
    seed,
    curriculum,
  })) {
    const groups = fill ? (await fillBatch(batch, play)).groups : await play(batch.scenarios);
    const result = await model.train(groups, {
      ...{ batch, learningRate: 2e-3, warmupSteps: 3, normalizerTokens: 2 },
      maxTokensPerMicroBatch: 2048,
    });
    rollouts += 16 * groups.length;
    steps += 1;
    differing += result.groups.filter(({ reason }) => reason === null).length;
    if (rollouts >= budget) break;
  }
  const answers = await gather(model, rollout, heldOut, { mode: "eval", groupSize: 16 });
  const yes = answers.flatMap(({ trajectories }) =>
    trajectories.map(({ metrics }) => metrics["yes"] ?? 0),
  );
  return {
    ...{ way: name, seed, rollouts, steps },
    "groups that train, a step": Number((differing / steps).toFixed(2)),
    "of the rollouts": Number(((16 * differing) / rollouts).toFixed(2)),
    "held out": Number((yes.reduce((sum, one) => sum + one, 0) / yes.length).toFixed(3)),
  };
}

const dataDir = await mkdtemp(join(tmpdir(), "hone-draws-"));
const base = fileURLToPath(new URL("../models/hone-2048-1m", import.meta.url));
const server = await startServer({ base, port: 0, dataDir });
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  const rows = [];
  for (const seed of values.seeds.split(",").map(Number)) {
    for (const way of ways) {
      const row = await run(hone, seed, way);
      console.log(JSON.stringify(row));
      rows.push(row);
    }
  }
  console.table(rows);
} finally {
  await server.close();
  await rm(dataDir, { recursive: true, force: true });
}
