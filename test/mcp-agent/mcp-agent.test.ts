import { gather } from "@hone/client";
import { afterAll, beforeAll, expect, it } from "vitest";
import { mcpTask } from "../../examples/mcp-agent/src/mcp-task.ts";
import { withServer } from "../../examples/mcp-agent/src/mcp-server.ts";
import { toOpenAITools } from "../../examples/mcp-agent/src/openai-tools.ts";
import { filesystem, memory } from "../../examples/mcp-agent/src/servers.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server?.close());

it("trains a step on rollouts over a real MCP server, which RULER compares", async () => {
  const read = { tool: "read_graph", arguments: {} };
  const scenarios = Array.from({ length: 8 }, (_, n) => ({
    task: `Of day ${n}.\n1. Read the entire knowledge graph`,
    ...{ difficulty: 1, tools: [read.tool], calls: [read] },
  }));
  // The base knows no tools: a grammar holds it to calls, and what it calls is its own choice.
  const task = mcpTask({ ...memory, only: ["read_graph"] }, scenarios);
  const settings = { turns: 2, judge: "", mustCall: true, sft: 0 };
  const how = { temperature: 1, answerTokens: 40, contextTokens: null, settings };
  const model = await server.hone.model({ name: "graph-reader" });
  const groups = await gather(
    model,
    (rollout, one: (typeof scenarios)[number]) => task.rollout(rollout, one, how),
    [scenarios[0]!],
    { groupSize: 12, concurrency: 6 },
  );
  expect(groups.flatMap(({ exceptions }) => exceptions)).toEqual([]);
  const { signal } = new AbortController();
  const scoreHow = { mode: "train", policy: model, concurrency: 6, alsoTrain() {} } as const;
  const scored = (await task.score?.(groups, { ...scoreHow, signal })) ?? [];
  const [{ trajectories } = { trajectories: [] }] = scored;
  // The program that follows the rubric saw in the results what the metric knows from the server.
  for (const { reward, metrics } of trajectories) {
    expect((reward ?? -1) > 0).toBe(metrics["done"] === 1);
  }
  const results = trajectories.flatMap(({ messages }) =>
    messages.filter(({ role }) => role === "tool").map(({ content }) => JSON.stringify(content)),
  );
  expect(results.some((text) => text.includes("likes oak"))).toBe(true);
  const result = await model.train(scored, { learningRate: 1e-3, allowConstrained: true });
  expect(result).toMatchObject({ trained: true, step: 1 });
  const tokens = trajectories.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
  expect(result.metrics["train_tokens"]).toBe(tokens);
});

it("can hold calls to every tool of the servers, and to schemas that say more than a grammar can", async () => {
  await server.hone.model({ name: "held" });
  const { signal } = new AbortController();
  const listed = [filesystem, memory].map((one) =>
    withServer(one, signal, ({ tools }) => Promise.resolve(tools)),
  );
  const inputSchema = {
    type: "object" as const,
    properties: { at: { type: "array", uniqueItems: true, items: { oneOf: [{}, { not: {} }] } } },
    dependentRequired: { at: ["by"] },
  };
  const hard = { name: "fs.hard", inputSchema };
  const given = [...(await Promise.all(listed)).flat(), hard];
  const ask = (held: boolean) =>
    server.fetch("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({
        ...{ model: "held", messages: [{ role: "user", content: "Go." }], max_tokens: 1 },
        ...toOpenAITools(given, { held }),
        ...{ names: undefined, tool_choice: "required" },
      }),
    });
  expect((await ask(true)).status).toBe(200);
  const refused = await ask(false);
  expect([refused.status, await refused.text()]).toEqual([
    400,
    expect.stringMatching(/not supported: .*tools\[17\]/),
  ]);
});
