/** Every framework within rollouts of a real server: what it samples is what is trained. */
import { gather, runHarness, type Connection, type TrajectoryGroup } from "@hone/client";
import { completionListSchema, type TrainResult } from "@hone/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";
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
