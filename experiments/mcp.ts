// `pnpm experiment mcp --base FOLDER [--seeds 1,2] [--steps N] [--out FOLDER]` — the agent of an MCP server, trained with
// RULER on both servers of the example, the program that follows its rubric being the judge; as a control, the same
// rewards change places within their group. Evaluations answer the same held-out scenarios four times. How the base is
// made stands in docs/mcp-agent.md. What is done stands in FOLDER/results.json, and the same command goes on there.
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  compare,
  gather,
  Hone,
  shuffleRewards,
  type Model,
  type TrajectoryGroup,
} from "@hone/client";
import { startServer } from "@hone/server";
import { withServer, type McpServer } from "../examples/mcp-agent/src/mcp-server.ts";
import { mcpTask } from "../examples/mcp-agent/src/mcp-task.ts";
import { readers } from "../examples/mcp-agent/src/readers.ts";
import { makeScenarios, type Scenario } from "../examples/mcp-agent/src/scenarios.ts";
import { openResults } from "./inbox/results.ts";

const { values } = parseArgs({
  options: {
    base: { type: "string" },
    seeds: { type: "string", default: "1,2" },
    steps: { type: "string", default: "12" },
    out: { type: "string", default: "runs/mcp" },
  },
});
if (values.base === undefined) throw new Error("Name the folder of the base: --base FOLDER");
const steps = Number(values.steps);
const seeds = values.seeds.split(",").map(Number);
const scenariosOfServer = 128;
const { signal } = new AbortController();
const settings = { turns: 6, judge: "", mustCall: false, sft: 0 };
const how = { temperature: 1, answerTokens: 60, contextTokens: null, settings };
const metric = "done";
const arms = ["ruler", "control"] as const;
const { folder, results, keep } = await openResults(values.out);

const server = await startServer({ base: values.base, dataDir: join(folder, "server") });
try {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  for (const one of readers) {
    const task = mcpTask(one, await possibleScenarios(one));
    await keep(`${one.name} base`, async () => answered(await hone.model({ name: "base" }), task));
    for (const seed of seeds) {
      for (const arm of arms) {
        const key = `${one.name} ${arm} ${seed}`;
        await keep(key, async () => answered(await trained(hone, task, key, arm, seed), task));
      }
    }
  }
} finally {
  await server.close();
}
for (const { name } of readers) {
  const before = results[`${name} base`] ?? [];
  for (const arm of arms) {
    const each = seeds.map((seed) => results[`${name} ${arm} ${seed}`] ?? []);
    const pooled = before.map((group, at) => ({
      ...group,
      trajectories: each.flatMap((groups) => groups[at]?.trajectories ?? []),
    }));
    const compared = compare(before, pooled, { metric });
    const [a, b, low, high] = [
      ...[compared.before, compared.after, compared.low, compared.high].map((v) => v.toFixed(3)),
    ];
    const apart = each.map((groups) => meanOf(groups, metric)).join(", ");
    console.log(
      `${name}, ${arm}: ${a} → ${b} (by seed: ${apart}), difference [${low}, ${high}]; calls that failed ${meanOf(before, "failedCalls")} → ${meanOf(pooled, "failedCalls")}, tokens ${meanOf(before, "tokens")} → ${meanOf(pooled, "tokens")}`,
    );
  }
}

type Task = ReturnType<typeof mcpTask>;

async function trained(
  hone: Hone,
  task: Task,
  key: string,
  arm: (typeof arms)[number],
  seed: number,
): Promise<Model> {
  const began = performance.now();
  const model = await hone.model({ name: key.replaceAll(" ", "-"), seed });
  const { groupsPerStep = 4, groupSize = 8 } = task.options ?? {};
  for await (const batch of model.batches(task.train, { groupsPerStep, steps, seed })) {
    const played = await gather(
      model,
      (one, asked: Scenario) => task.rollout(one, asked, how),
      batch.scenarios,
      {
        ...{ groupSize, concurrency: 32, timeoutMs: 600_000 },
      },
    );
    const scoreHow = { mode: "train", policy: model, concurrency: 32, signal } as const;
    const scored = (await task.score?.(played, { ...scoreHow, alsoTrain() {} })) ?? played;
    const groups =
      arm === "control" ? shuffleRewards(scored, seed * 1_000_003 + batch.step) : scored;
    await model.train(groups, {
      ...{ learningRate: 4e-3, schedule: { type: "linear", end: 0.1 }, warmupSteps: 2, batch },
      ...{ optimizerSteps: 2, scaleRewards: "none", normalizerTokens: 24 },
    });
    console.log(`${key}, step ${batch.trained + 1}/${steps}: done ${meanOf(played, metric)}`);
  }
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  console.log(`${key}: ${minutes} minutes at a load of ${loadavg()[1]?.toFixed(1)}`);
  return model;
}

/** The held-out scenarios, four times each, without the words: only what is measured is kept. */
async function answered(model: Model, task: Task): Promise<TrajectoryGroup[]> {
  const groups = await gather(
    model,
    (one, asked: Scenario) => task.rollout(one, asked, how),
    [...task.heldOut],
    { groupSize: 4, mode: "eval", concurrency: 32, timeoutMs: 600_000 },
  );
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({ ...one, messages: [], histories: [] })),
  }));
}

/** Different scenarios whose calls the server makes without an error: it has one process, because nothing changes. */
async function possibleScenarios(from: McpServer): Promise<Scenario[]> {
  return await withServer(from, signal, async (running) => {
    const kept = new Map<string, Scenario>();
    for (const scenario of makeScenarios(running.tools, { seed: 1, words: from.words })) {
      const calls = scenario.calls ?? [];
      const made = await Promise.all(calls.map((one) => running.call(one.tool, one.arguments)));
      if (made.every(({ failed }) => !failed)) kept.set(scenario.task, scenario);
      if (kept.size === scenariosOfServer) break;
    }
    return [...kept.values()];
  });
}

function meanOf(groups: readonly TrajectoryGroup[], name: string): string {
  const all = groups.flatMap(({ trajectories }) =>
    trajectories.map((one) => one.metrics[name] ?? 0),
  );
  return (all.reduce((sum, value) => sum + value, 0) / all.length).toFixed(3);
}
