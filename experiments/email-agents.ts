// `pnpm experiment email-agents [--agents openai,ai-sdk,…] [--questions N] [--steps N] [--out FOLDER]` — one policy of the
// email agent, trained by the gold reward through chat completions, answers the same held-out questions through the
// agent of every framework, and so does its base: how well, in how many turns, and how many more tokens go through the
// model because histories split. What is done stands in FOLDER/results.json, and the same command goes on there.
import { loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compare, gather, Hone, type TrajectoryGroup } from "@hone/client";
import { startServer } from "@hone/server";
import { agentNames } from "../examples/email-agent/src/agents.ts";
import task from "../examples/email-agent/src/task.ts";
import { openResults } from "./inbox/results.ts";

const { values } = parseArgs({
  options: {
    agents: { type: "string", default: agentNames.join(",") },
    questions: { type: "string", default: "180" },
    steps: { type: "string" },
    out: { type: "string", default: "runs/email-agents" },
  },
});
const { groupsPerStep = 8, groupSize = 8, answerTokens = 40, concurrency } = task.options ?? {};
const { learningRate, schedule, train } = task.options ?? {};
const steps = Number(values.steps ?? task.options?.steps);
const agents = values.agents.split(",");
const heldOut = task.heldOut.slice(0, Number(values.questions));
const { folder, results, keep } = await openResults(values.out);

const server = await startServer({
  base: fileURLToPath(new URL("../models/hone-email-1m", import.meta.url)),
  dataDir: join(folder, "server"),
});
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  const model = await hone.model({ name: "email", seed: 1 });
  for await (const batch of model.batches(task.train, { groupsPerStep, steps, seed: 1 })) {
    const groups = await gather(model, rolloutOf("openai"), batch.scenarios, {
      ...{ groupSize, concurrency, timeoutMs: 600_000 },
    });
    await model.train(groups, { ...train, learningRate, schedule, batch });
    console.log(`step ${batch.trained + 1}/${steps}: right ${mean(groups, "correct")}`);
  }
  for (const agent of agents) {
    await keep(`${agent} base`, () => answered(model.at(0), agent));
    await keep(`${agent} trained`, () => answered(model, agent));
    console.log(`${agent}: load ${loadavg()[0]?.toFixed(1)}`);
  }
} finally {
  await server.close();
}

const reference = results[`${agents[0]} trained`] ?? [];
console.table(
  agents.map((agent) => {
    const [base, after] = ["base", "trained"].map((which) => results[`${agent} ${which}`] ?? []);
    const { low, high } = compare(reference, after!, { metric: "correct" });
    return {
      ...{ agent, base: mean(base!, "correct"), trained: mean(after!, "correct") },
      [`beside ${agents[0]}`]: `[${low.toFixed(2)}, ${high.toFixed(2)}]`,
      ...{ turns: mean(after!, "turns"), badCalls: mean(after!, "badCalls") },
      ...{ tokens: mean(after!, "tokens"), extra: extraTokens(after!) },
    };
  }),
);

type Answering = Parameters<typeof task.rollout>[0];

function rolloutOf(agent: string) {
  const settings = { turns: 6, agent, reward: "gold", judge: "", sft: 0, mcp: false };
  const how = { temperature: 1, answerTokens, contextTokens: null, settings };
  return (model: Answering, question: (typeof task.train)[number]) =>
    task.rollout(model, question, how);
}

/** The held-out questions, without the words: only what is measured is kept. */
async function answered(
  model: Parameters<typeof gather>[0],
  agent: string,
): Promise<TrajectoryGroup[]> {
  const groups = await gather(model, rolloutOf(agent), [...heldOut], {
    ...{ groupSize: 1, mode: "eval", concurrency, timeoutMs: 600_000 },
  });
  const failed = groups.flatMap(({ exceptions }) => exceptions);
  if (failed.length > 0) console.error(`${agent}: ${failed.length} failed, ${failed[0]?.message}`);
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({ ...one, messages: [], histories: [] })),
  }));
}

function all(groups: readonly TrajectoryGroup[]) {
  return groups.flatMap(({ trajectories }) => trajectories);
}

function mean(groups: readonly TrajectoryGroup[], name: string): string {
  const each = all(groups).map(({ metrics }) => metrics[name] ?? 0);
  return (each.reduce((sum, value) => sum + value, 0) / each.length).toFixed(2);
}

/** Tokens that were said before and go through the model again because a history split. */
function extraTokens(groups: readonly TrajectoryGroup[]): number {
  return all(groups).reduce((sum, { usage }) => sum + (usage.splits?.tokensAgain ?? 0), 0);
}
