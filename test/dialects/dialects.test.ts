import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Anthropic from "@anthropic-ai/sdk";
import { gather, type RolloutModel } from "@hone/client";
import { completionListSchema } from "@hone/core";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const tools: Anthropic.Tool[] = [
  {
    name: "look",
    description: "Looks around.",
    input_schema: { type: "object", properties: { where: { type: "string" } } },
  },
];

let played = 0;

/** No two rewards are equal: a group in which all were would not train. */
const rewardOf = (said: number) => (said % 2) + played++ / 100;

/** Three turns of Anthropic's SDK, streamed and whole in turn, with tools that the model may call. */
async function play(model: RolloutModel): Promise<{ reward: number }> {
  const { model: name, ...connection } = model.anthropic();
  const client = new Anthropic(connection);
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: "Say a word." }];
  let said = 0;
  for (let turn = 0; turn < 3; turn++) {
    const prompt = { model: name, system: "You are brief.", messages, tools };
    const counted = await client.messages.countTokens(prompt);
    const asked = { ...prompt, max_tokens: 6 };
    const answer =
      turn === 1
        ? await client.messages.create(asked)
        : await client.messages.stream(asked).finalMessage();
    expect(answer.usage.input_tokens).toBe(counted.input_tokens);
    expect(answer.model).toBe(`${name}@${model.mode === "train" ? step : 0}`);
    said += answer.usage.output_tokens;
    messages.push(
      { role: "assistant", content: answer.content },
      { role: "user", content: [{ type: "text", text: "Another one." }] },
    );
  }
  return { reward: rewardOf(said) };
}
let step = 0;

const functions: OpenAI.Responses.FunctionTool[] = tools.map(
  ({ name, description, input_schema: parameters }) => ({
    ...{ type: "function", name, description: description ?? null },
    ...{ parameters, strict: false },
  }),
);

/**
 * A loop of tool turns in Responses, streamed and whole in turn. Each turn sends what is new and names the answer
 * before. The first call has to be, so that there is one: it is held by a grammar, and does not train.
 */
async function playResponses(model: RolloutModel): Promise<{ reward: number }> {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI(connection);
  let input: OpenAI.Responses.ResponseInputItem[] = [{ role: "user", content: "Look around." }];
  let previous: string | null = null;
  let said = 0;
  for (let turn = 0; turn < 4; turn++) {
    const asked: OpenAI.Responses.ResponseCreateParamsNonStreaming = {
      ...{ model: name, instructions: "You are brief.", tools: functions, input },
      ...{ previous_response_id: previous, max_output_tokens: turn === 1 ? 60 : 6 },
      tool_choice: turn === 1 ? "required" : "auto",
      parallel_tool_calls: false,
    };
    const answer: OpenAI.Responses.Response =
      turn % 2 === 0
        ? await client.responses.stream(asked as never).finalResponse()
        : await client.responses.create(asked);
    said += answer.usage!.output_tokens;
    previous = answer.id;
    input = answer.output.flatMap((item) =>
      item.type === "function_call"
        ? [{ type: "function_call_output" as const, call_id: item.call_id, output: "A door." }]
        : [],
    );
    if (input.length === 0) input = [{ role: "user", content: "Another one." }];
  }
  return { reward: rewardOf(said) };
}

/** Two sides, each a conversation of its own with its own reward; a frozen opponent and a judge are asked besides. */
async function selfPlay(model: RolloutModel) {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI(connection);
  const { model: frozen, ...other } = model.at(0);
  const opponent = new OpenAI(other);
  // As a judge's client is made: it knows of no rollout.
  const judge = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key });
  const ask = async (who: OpenAI, asked: string, messages: OpenAI.ChatCompletionMessageParam[]) =>
    await who.chat.completions.create({ model: asked, messages, max_tokens: 5 });
  const sides = ["first", "second"].map((side) => ({
    messages: [
      { role: "user" as const, content: `You are ${side}.` },
    ] as OpenAI.ChatCompletionMessageParam[],
    ids: [] as string[],
  }));
  for (let turn = 0; turn < 2; turn++) {
    for (const { messages, ids } of sides) {
      const { id, choices } = await ask(client, name, messages);
      ids.push(id);
      const { choices: answers, model: policy } = await ask(opponent, frozen, messages);
      expect(policy).toBe(`${name}@0`);
      messages.push(choices[0]!.message);
      messages.push({ role: "user", content: answers[0]!.message.content || "Go on." });
    }
  }
  await ask(judge, name, [{ role: "user", content: "Who won?" }]);
  const won = played++ % 2;
  const rewards = sides.flatMap(({ ids }, side) =>
    ids.map((id) => [id, { reward: side === won ? 1 : -1 }] as const),
  );
  return { reward: 0, completions: Object.fromEntries(rewards) };
}

let folder: string;
let server: TestServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-dialects-"));
  server = await startTestServer(folder);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await server?.close();
  await rm(folder, { recursive: true, force: true });
});

async function completionsOf(rolloutId: string | null) {
  const response = await server.fetch(`/v1/rollouts/${rolloutId}/completions`);
  return completionListSchema.parse(await response.json()).data;
}

describe("training an agent of OpenAI's Responses", () => {
  it("trains the turns that name the one before as one sequence, on the ids that were sampled", async () => {
    const model = await server.hone.model({ name: "responder" });
    const groups = await gather(model, playResponses, [{}], { groupSize: 4 });
    expect(groups.flatMap((group) => group.exceptions)).toEqual([]);
    const { trajectories } = groups[0]!;
    let free = 0;
    for (const { rolloutId, histories, messages } of trajectories) {
      expect(histories).toEqual([]);
      expect(messages[0]).toMatchObject({ role: "system", content: "You are brief." });
      const data = await completionsOf(rolloutId);
      expect(data.map(({ parentId }) => parentId)).toEqual([
        null,
        ...data.slice(0, 3).map(({ id }) => id),
      ]);
      expect(data.map(({ constrained }) => constrained)).toEqual([false, true, false, false]);
      for (const { constrained, sampledIds } of data) free += constrained ? 0 : sampledIds.length;
    }
    const result = await model.train(groups, { learningRate: 1e-3 });
    expect(result).toMatchObject({ trained: true, step: 1 });
    expect(result.metrics["train_tokens"]).toBe(free);
    expectSameLogprobs(result);
  });
});

describe("training an agent of Anthropic's SDK", () => {
  it("trains every turn as one sequence, on the ids that were sampled", async () => {
    // Whatever the environment holds is for Anthropic's own server.
    vi.stubEnv("ANTHROPIC_API_KEY", "not-for-this-server");
    vi.stubEnv("ANTHROPIC_AUTH_TOKEN", "nor-this");
    const model = await server.hone.model({ name: "claw" });
    for (; step < 2; step++) {
      const groups = await gather(model, play, [{}, {}], { groupSize: 4 });
      expect(groups.flatMap((group) => group.exceptions)).toEqual([]);
      const trajectories = groups.flatMap((group) => group.trajectories);
      for (const { messages, histories, usage } of trajectories) {
        expect(usage.completions).toBe(3);
        expect(messages).toHaveLength(7);
        expect(messages[0]).toMatchObject({ role: "system", content: "You are brief." });
        expect(histories).toEqual([]);
      }
      const data = await completionsOf(trajectories[0]!.rolloutId);
      expect(data.map(({ parentId }) => parentId)).toEqual([null, data[0]!.id, data[1]!.id]);
      const result = await model.train(groups, { learningRate: 1e-3 });
      expect(result).toMatchObject({ trained: true, step: step + 1 });
      const tokens = trajectories.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
      expect(result.metrics["train_tokens"]).toBe(tokens);
      // The trainer's forward over the joined turns gives what the engine gave turn by turn.
      expectSameLogprobs(result);
    }
  });

  it("is known by the SDK's own key header, and refused without it", async () => {
    const keyed = new Anthropic({ baseURL: server.url, apiKey: server.key, authToken: null });
    const { data } = await keyed.models.list();
    expect(data.map(({ id }) => id)).toContain("claw@2");
    const stranger = new Anthropic({ baseURL: server.url, apiKey: "wrong", authToken: null });
    const refused = await stranger.models.list().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(refused).toMatchObject({
      requestID: expect.stringMatching(/^req_/),
      error: { type: "error", error: { type: "authentication_error" } },
    });
  });

  it("follows the rollout with one client for all of them", async () => {
    const model = await server.hone.model({ name: "claw" });
    let client: Anthropic | undefined;
    const groups = await gather(
      model,
      async (m) => {
        client ??= new Anthropic({ ...m.anthropic(), fetch: m.fetch });
        await client.messages.create({
          model: m.name,
          max_tokens: 2,
          messages: [{ role: "user", content: "?" }],
        });
        return 0;
      },
      [{}],
      { groupSize: 3 },
    );
    const { trajectories, exceptions } = groups[0]!;
    expect(exceptions).toEqual([]);
    expect(trajectories.map(({ usage }) => usage.completions)).toEqual([1, 1, 1]);
  });
});

describe("several conversations and policies in one rollout", () => {
  it("trains both sides by their own rewards, and nothing of whoever else is asked", async () => {
    const model = await server.hone.model({ name: "both" });
    const groups = await gather(model, selfPlay, [{}], { groupSize: 2 });
    expect(groups.flatMap((group) => group.exceptions)).toEqual([]);
    let tokens = 0;
    for (const { rolloutId, histories, messages, usage } of groups[0]!.trajectories) {
      expect(usage.completions).toBe(4);
      expect(
        [messages, ...histories.map((one) => one.messages)].map(({ length }) => length),
      ).toEqual([4, 4]);
      const data = await completionsOf(rolloutId);
      expect(data.map(({ parentId, splitReason }) => [parentId, splitReason])).toEqual([
        [null, null],
        [null, "new_conversation"],
        [data[0]!.id, null],
        [data[1]!.id, null],
      ]);
      expect(usage).not.toHaveProperty("splits");
      tokens += usage.completionTokens;
    }
    const result = await model.train(groups, { learningRate: 1e-3 });
    // The rollouts' own rewards are all 0: what trains are those of the sides.
    expect(result).toMatchObject({ trained: true, step: 1, reasons: {} });
    expect(result.metrics["train_tokens"]).toBe(tokens);
  });

  it("takes the id of a response of any dialect for what is said of single completions", async () => {
    const model = await server.hone.model({ name: "both" });
    const groups = await gather(
      model,
      async (m) => {
        const { model: name, ...connection } = m.connection();
        const said = await new OpenAI(connection).responses.create({
          ...{ model: name, input: "?", instructions: "Be brief.", max_output_tokens: 4 },
        });
        const { model: _name, ...anthropic } = m.anthropic();
        const left = await new Anthropic(anthropic).messages.create({
          ...{ model: name, max_tokens: 4, messages: [{ role: "user", content: "?" }] },
        });
        const completions = { [said.id]: { weight: 2 }, [left.id]: { trainable: false } };
        return { reward: rewardOf(0), completions };
      },
      [{}],
      { groupSize: 2 },
    );
    expect(groups[0]!.exceptions).toEqual([]);
    const result = await model.train(groups, { learningRate: 1e-3 });
    expect(result).toMatchObject({ trained: true, step: 2 });
    const ids = groups[0]!.trajectories.map(({ rolloutId }) => rolloutId);
    const lengths = await Promise.all(
      ids.map(async (id) => (await completionsOf(id))[0]!.sampledIds.length),
    );
    expect(result.metrics["train_tokens"]).toBe(lengths.reduce((a, b) => a + b));
  });
});

describe("a server that starts again", () => {
  it("goes on from the answer that it gave before", async () => {
    const opened = await server.fetch("/v1/rollouts", {
      method: "POST",
      body: JSON.stringify({ model: "responder", id: "long" }),
    });
    expect(opened.status).toBe(200);
    const ask = (input: string, previous: string | null) => {
      const client = new OpenAI({
        baseURL: `${server.url}/v1/rollouts/long/v1`,
        apiKey: server.key,
      });
      const asked = { model: "responder", input, previous_response_id: previous };
      return client.responses.create({ ...asked, max_output_tokens: 6 });
    };
    const { id } = await ask("Say a word.", null);
    await server.close();
    server = await startTestServer(folder);
    await ask("Another one.", id);
    const [first, second] = await completionsOf("long");
    expect(second).toMatchObject({ parentId: first!.id, splitReason: null });
    expect(second!.messages).toHaveLength(3);
  });
});
