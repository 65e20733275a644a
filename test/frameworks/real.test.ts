/** Every framework within rollouts of a real server: what it samples is what is trained. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gather, runHarness, type Connection, type TrajectoryGroup } from "@hone/client";
import { completionListSchema, type TrainResult } from "@hone/core";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";
import { describe as described, question as asked, schemas } from "./house.ts";
import { entriesOf, load, runnable, type Entry } from "./matrix.ts";
import { shapeOf } from "./reward.ts";

let server: TestServer;
let wire: Wire;
beforeAll(async () => {
  server = await startTestServer();
  wire = recordWire();
});
afterAll(async () => {
  wire?.close();
  await server?.close();
});

const functions = (["look", "open"] as const).map((name) => ({
  type: "function" as const,
  function: { name, description: described[name], parameters: schemas[name] },
}));

const single = { parallel_tool_calls: false };
/** By the route: one call, whichever; and no more calls. */
const held: Record<string, [call: object, text: object]> = {
  completions: [
    { tool_choice: "required", ...single, max_tokens: 160 },
    { tool_choice: "none", max_tokens: 32 },
  ],
  responses: [
    { tool_choice: "required", ...single, max_output_tokens: 160 },
    { tool_choice: "none", max_output_tokens: 32 },
  ],
  messages: [
    { tool_choice: { type: "any", disable_parallel_tool_use: true }, max_tokens: 160 },
    { tool_choice: { type: "none" }, max_tokens: 32 },
  ],
};

/**
 * The shipped base calls nothing of its own accord. So the requests of a rollout are changed on their way: two are
 * held to a call, and the third is answered in words. The agents are as they are.
 */
function holding(fetch: Connection["fetch"]): { fetch: Connection["fetch"]; requests: number } {
  const line: ReturnType<typeof holding> = {
    requests: 0,
    fetch: async (input, init) => {
      const route = String(input instanceof Request ? input.url : input)
        .split("/")
        .at(-1)!;
      const choice = held[route]?.[line.requests < 2 ? 0 : 1];
      if (!choice || typeof init?.body !== "string") throw new Error(`${route} asks no model`);
      const body = { ...(JSON.parse(init.body) as object), ...choice };
      const response = await fetch(input, { ...init, body: JSON.stringify(body) });
      if (response.ok) line.requests++;
      return response;
    },
  };
  return line;
}

describe.each(runnable)("the frameworks of %s", (set) => {
  const entries = entriesOf(set).filter(({ apart }) => !apart);
  const groups = new Map<Entry, TrajectoryGroup>();
  let result: TrainResult;
  let played = 0;

  beforeAll(async () => {
    const model = await server.hone.model({ name: `matrix-${runnable.indexOf(set)}` });
    const all = await gather(
      model,
      async (rollout, { entry }: { entry: Entry }) => {
        const number = played++;
        const agent = await load(entry, set);
        const line = holding(rollout.connection().fetch);
        try {
          await agent({
            openai: { ...rollout.connection(), fetch: line.fetch },
            anthropic: { ...rollout.anthropic(), fetch: line.fetch },
            streamed: number % 2 === 0,
          });
        } catch (error) {
          // Last words of an untrained base may be cut or empty, which some frameworks refuse. They train all the same.
          if (line.requests < 3) throw error;
        }
        // No two are equal: a group in which all were would not train.
        return number / 100;
      },
      entries.map((entry) => ({ entry })),
      { groupSize: 2, concurrency: 8 },
    );
    for (const [i, group] of all.entries()) groups.set(entries[i]!, group);
    result = await model.train(all, { learningRate: 1e-4, allowConstrained: true });
  });

  it("trains what was sampled, each completion once", () => {
    expect(result).toMatchObject({ trained: true, step: 1, reasons: {} });
    const batch = wire.batches().at(-1)!;
    expectTrainedWereSampled([batch], wire.sampled());
    const tokens = [...groups.values()]
      .flatMap(({ trajectories }) => trajectories)
      .reduce((sum, { usage }) => sum + usage.completionTokens, 0);
    expect(batch.reduce((sum, { ids }) => sum + ids.length, 0)).toBe(tokens);
    expect(result.metrics["train_tokens"]).toBe(tokens);
    expectSameLogprobs(result);
  });

  it.each(entries)("$name goes on token for token", async (entry) => {
    const { trajectories, exceptions } = groups.get(entry)!;
    expect(exceptions).toEqual([]);
    expect(trajectories).toHaveLength(2);
    for (const trajectory of trajectories) {
      // A call of the tool that is the answer ends the loop wherever it comes.
      if (entry.final !== "tool") {
        const calls = ["system", "user", "1 calls", "tool", "1 calls", "tool", "answer"];
        expect(shapeOf(trajectory)).toEqual(calls);
      }
      const path = `/v1/rollouts/${trajectory.rolloutId}/completions`;
      const { data } = completionListSchema.parse(await (await server.fetch(path)).json());
      const splits = data.map(({ splitReason }) => splitReason).filter((reason) => reason !== null);
      expect(splits).toEqual(entry.split ? [entry.split] : []);
    }
  });
});

it("captures a program that knows only its environment, with the files that it leaves", async () => {
  const model = await server.hone.model({ name: "harness" });
  let played = 0;
  const [group] = await gather(
    model,
    async (rollout, { question }) => {
      const { exitCode, stderr, files, leftOut } = await runHarness(rollout, {
        command: [process.execPath, `${import.meta.dirname}/harness-script.mjs`],
        files: { "question.txt": question },
      });
      expect({ exitCode, stderr, leftOut }).toEqual({ exitCode: 0, stderr: "", leftOut: [] });
      return { reward: played++, metadata: files };
    },
    [{ question: "Where is the key?" }],
    { groupSize: 4 },
  );
  expect(group!.exceptions).toEqual([]);
  for (const { messages, histories, metadata } of group!.trajectories) {
    expect(histories).toEqual([]);
    expect(metadata["question.txt"]).toBe("Where is the key?");
    const said = JSON.parse(String(metadata["answers.json"])) as { content: string }[];
    const recorded = messages.filter(({ role }) => role === "assistant");
    expect(recorded.map(({ content }) => content)).toEqual(said.map(({ content }) => content));
  }
  const result = await model.train([group!]);
  expect(result).toMatchObject({ trained: true });
  const batch = wire.batches().at(-1)!;
  expect(batch).toHaveLength(4 * 3);
  expectTrainedWereSampled([batch], wire.sampled());
  expectSameLogprobs(result);
});

/** A server that passes a rollout's requests on, as `holding` changes them: for an agent in another language. */
async function holdingServer({ baseURL, apiKey, fetch }: Connection) {
  const line = holding(fetch);
  const pass = async (request: IncomingMessage, response: ServerResponse) => {
    const answer = await line.fetch(`${baseURL}${request.url}`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body: (await request.toArray()).join(""),
    });
    const type = answer.headers.get("content-type") ?? "application/json";
    response.writeHead(answer.status, { "content-type": type });
    response.end(await answer.text());
  };
  const between = createServer((request, response) => {
    pass(request, response).catch((error: Error) => response.destroy(error));
  });
  await once(between.listen(0, "127.0.0.1"), "listening");
  const { port } = between.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, line, close: () => between.close() };
}

it("trains openai-python on what it sampled, streamed and whole", async () => {
  const model = await server.hone.model({ name: "python" });
  const [entry] = entriesOf(".").filter(({ name }) => name === "openai-python");
  const agent = await load(entry!, ".");
  let played = 0;
  const [group] = await gather(
    model,
    async (rollout) => {
      const number = played++;
      const between = await holdingServer(rollout.connection());
      try {
        const openai = { ...rollout.connection(), baseURL: between.url };
        await agent({ openai, anthropic: rollout.anthropic(), streamed: number % 2 === 0 });
      } catch (error) {
        // As above: last words that a limit cut are thrown by its stream helper.
        if (between.line.requests < 3) throw error;
      } finally {
        between.close();
      }
      return number;
    },
    [{}],
    { groupSize: 4 },
  );
  expect(group!.exceptions).toEqual([]);
  for (const trajectory of group!.trajectories) {
    const calls = ["system", "user", "1 calls", "tool", "1 calls", "tool", "answer"];
    expect(shapeOf(trajectory)).toEqual(calls);
    expect(trajectory.histories).toEqual([]);
  }
  const result = await model.train([group!], { learningRate: 1e-4, allowConstrained: true });
  expect(result).toMatchObject({ trained: true });
  const batch = wire.batches().at(-1)!;
  expect(batch).toHaveLength(4 * 3);
  expectTrainedWereSampled([batch], wire.sampled());
  expectSameLogprobs(result);
});

it("goes on from several calls that a real engine sampled in one answer, and trains them", async () => {
  const model = await server.hone.model({ name: "parallel", seed: 1 });
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: asked }];
  const ask = { model: "parallel", messages, tools: functions, max_tokens: 200 };
  const must = { ...ask, tool_choice: "required" as const };
  // How many calls an untrained base makes is chance: of many seeds one makes several, and again on an idle engine.
  const outside = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key });
  let seed = 0;
  for (let calls = 0; calls < 2 && seed < 300;) {
    const { choices } = await outside.chat.completions.create({ ...must, seed: ++seed });
    calls = choices[0]?.message.tool_calls?.length ?? 0;
  }
  let played = 0;
  const [group] = await gather(
    model,
    async (rollout) => {
      const { model: name, ...connection } = rollout.connection();
      const client = new OpenAI(connection);
      const number = played++;
      const body = { ...must, model: name, seed };
      const { choices } =
        number % 2
          ? await client.chat.completions.stream(body).finalChatCompletion()
          : await client.chat.completions.create(body);
      const { message } = choices[0]!;
      expect(message.tool_calls?.length).toBeGreaterThan(1);
      const results = message.tool_calls!.map(({ id }) => ({
        ...{ role: "tool" as const, tool_call_id: id, content: "a chest" },
      }));
      const next = { model: name, messages: [...messages, message, ...results], max_tokens: 8 };
      await client.chat.completions.create({ ...ask, ...next, tool_choice: "none" });
      return number;
    },
    [{}],
    { groupSize: 4, concurrency: 1 },
  );
  expect(group!.exceptions).toEqual([]);
  for (const { histories } of group!.trajectories) expect(histories).toEqual([]);
  const result = await model.train([group!], { learningRate: 1e-4, allowConstrained: true });
  expect(result).toMatchObject({ trained: true });
  const batch = wire.batches().at(-1)!;
  expect(batch).toHaveLength(4 * 2);
  expectTrainedWereSampled([batch], wire.sampled());
  expectSameLogprobs(result);
});
