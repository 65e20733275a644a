/** The email agent in every framework, within rollouts of a real server. */
import { fileURLToPath } from "node:url";
import { gather, type Model, type TrajectoryGroup } from "@hone/client";
import { completionListSchema } from "@hone/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentNames, type AgentName } from "../../examples/email-agent/src/agents.ts";
import task from "../../examples/email-agent/src/task.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";

const base = fileURLToPath(new URL("../../models/hone-email-1m", import.meta.url));
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
// Mastra takes no older Node.
const names = agentNames.filter((name) => name !== "mastra" || major * 100 + minor >= 2213);

let server: TestServer;
let wire: Wire;
let model: Model;
const groups = new Map<AgentName, TrajectoryGroup[]>();
beforeAll(async () => {
  server = await startTestServer(undefined, { base });
  wire = recordWire();
  model = await server.hone.model({ name: "email", seed: 1 });
  for (const agent of names) {
    const settings = { turns: 6, agent, reward: "gold", judge: "", sft: 0, mcp: false };
    const how = { temperature: 1, answerTokens: 40, contextTokens: null, settings };
    const played = await gather(
      model,
      (one, asked: (typeof task.train)[number]) => task.rollout(one, asked, how),
      task.train.slice(0, 2),
      { groupSize: 4 },
    );
    groups.set(agent, played);
  }
});
afterAll(async () => {
  wire?.close();
  await server?.close();
});

const trajectoriesOf = (name: AgentName) =>
  groups.get(name)!.flatMap(({ trajectories }) => trajectories);

async function completionsOf(rolloutId: string | null) {
  const path = `/v1/rollouts/${rolloutId}/completions`;
  return completionListSchema.parse(await (await server.fetch(path)).json()).data;
}

describe.each(names)("the email agent in %s", (name) => {
  it("plays the task: nothing fails, and turns and tokens are those of the ledger", () => {
    expect(groups.get(name)!.flatMap(({ exceptions }) => exceptions)).toEqual([]);
    expect(trajectoriesOf(name)).toHaveLength(8);
    for (const { metrics, usage, histories } of trajectoriesOf(name)) {
      expect(histories).toEqual([]);
      expect(metrics["turns"]).toBe(usage.completions);
      expect(metrics["tokens"]).toBe(usage.completionTokens);
      expect(usage.constrained ?? 0).toBe(0);
    }
    // The base knows these tools by their very text, and searches in most of its rollouts.
    const turns = trajectoriesOf(name).reduce((sum, { metrics }) => sum + metrics["turns"]!, 0);
    expect(turns).toBeGreaterThan(12);
  });

  it("shows the model the same prompt as every other, and each turn extends the last", async () => {
    const [first] = (await completionsOf(trajectoriesOf("openai")[0]!.rolloutId)).slice(0, 1);
    for (const [at, { rolloutId }] of trajectoriesOf(name).entries()) {
      const data = await completionsOf(rolloutId);
      expect(data.map(({ splitReason }) => splitReason)).toEqual(data.map(() => null));
      expect(data.map(({ parentId }) => parentId)).toEqual([
        ...[null, ...data.map(({ id }) => id)].slice(0, data.length),
      ]);
      if (at === 0) expect(data[0]!.promptIds).toEqual(first!.promptIds);
    }
  });
});

it("trains what was sampled, each completion once, whichever framework asked", async () => {
  const result = await model.train([...groups.values()].flat(), { learningRate: 1e-3 });
  expect(result).toMatchObject({ trained: true, step: 1 });
  const batch = wire.batches().at(-1)!;
  expectTrainedWereSampled([batch], wire.sampled());
  const tokens = [...groups.values()]
    .flat()
    .filter((_, at) => result.groups[at]!.reason === null)
    .flatMap(({ trajectories }) => trajectories)
    .reduce((sum, { usage }) => sum + usage.completionTokens, 0);
  expect(result.metrics["train_tokens"]).toBe(tokens);
  expectSameLogprobs(result);
});
