import { type ChatMessage, HoneError } from "@hone/core";
import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createRendererClient, type RendererClient } from "../../renderer/http-renderer.ts";
import { readStepData } from "../../testing/read-step-data.ts";
import { createScriptedEngine } from "../../testing/scripted-engine.ts";
import type { Child } from "../../supervise/child.ts";
import {
  adapterList,
  ended,
  type FileTrainer,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../../testing/fixtures.ts";
import { startRendererChild, workerPython } from "../../testing/running-engine.ts";
import { serveGateway } from "../../testing/served-gateway.ts";

const tools = [{ type: "function", function: { name: "look", parameters: { type: "object" } } }];
const call = {
  id: "call_1",
  type: "function",
  function: { name: "look", arguments: '{"where":"here"}' },
};
const conversation = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "What is here?" },
  { role: "assistant", content: null, tool_calls: [call] },
  { role: "tool", tool_call_id: "call_1", content: "a hat" },
  { role: "assistant", content: "A hat." },
  { role: "user", content: "And now?" },
  { role: "assistant", content: "Nothing <|im_end|> new." },
];

describe.skipIf(!workerPython())("steps of imitation", () => {
  let child: Child;
  let renderer: RendererClient;
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let trainer: FileTrainer;
  let server: TestState;
  beforeAll(async () => {
    folder = await temporaryFolder();
    child = await startRendererChild();
    const baseURL = () => {
      if (!away) return child.baseURL;
      throw new HoneError("The renderer is being restarted.", { code: "renderer_unavailable" });
    };
    renderer = createRendererClient({ baseURL, key: () => child.key });
    trainer = fileTrainer();
    const engine = adapterList();
    server = await openTestState(folder.path, { engine: () => engine, trainer, renderer });
    await server.call("PUT", "/v1/models/m", {});
  });
  afterAll(async () => {
    await server?.state.close();
    await renderer?.close();
    await child?.stop();
    await folder?.remove();
  });

  /** As while the renderer is being restarted. */
  let away = false;
  let tokens = 0;
  const submit = (op: object) =>
    server.call("POST", "/v1/models/m/operations", { clientToken: `s${tokens++}`, op });
  async function run(op: object) {
    const { json } = await submit(op);
    const over = await ended(server, json.id);
    return { over, data: () => readStepData(trainer.trained.at(-1)!) };
  }
  const sft = (examples: object[], config: object = {}, rest: object = {}) =>
    run({ type: "sft", examples, config, ...rest });
  const spelt = async (ids: number[]) =>
    (await renderer.tokens(ids)).map(({ token }) => token).join("");

  test("the prompt of an answer is the one that the gateway makes for it", async () => {
    const { over, data } = await sft([{ messages: conversation, tools }]);
    expect(over).toMatchObject({
      status: "succeeded",
      result: { type: "sft", trained: true, step: 1, policy: "m@1", examples: 1, dropped: [] },
    });
    const made = data();
    expect(made.completions.map(({ parent, trainable }) => [parent, trainable])).toEqual([
      [-1, 1],
      [0, 1],
      [1, 1],
    ]);
    // Nobody sampled it: no policy, no logprobs.
    expect(new Set(made.tensor("completion_policy"))).toEqual(new Set([-1]));
    expect(new Set(made.tensor("logprobs"))).toEqual(new Set([0]));
    expect(made.config.loss).toEqual({ type: "sft" });

    // The same conversation through the gateway, whose engine says the answers of the example.
    const engine = createScriptedEngine(renderer);
    const gateway = await serveGateway(engine, renderer);
    onTestFinished(() => gateway.close());
    for (const at of [2, 4, 6]) {
      const { role: _, ...answer } = conversation[at] as { role: string; content: string | null };
      engine.lines.push({ answer });
      await gateway.client("r").chat.completions.create({
        model: "m",
        messages: conversation.slice(0, at) as OpenAI.ChatCompletionMessageParam[],
        tools: tools as OpenAI.ChatCompletionTool[],
      });
    }
    // What the engine said are the very ids of the example's answers, too.
    expect(gateway.ledger.all.map(({ sampled }) => Array.from(sampled))).toEqual(
      made.completions.map(({ answer }) => answer),
    );
    const path: number[] = [];
    for (const [turn, { prompt, answer }] of made.completions.entries()) {
      path.push(...prompt);
      expect(engine.requests[turn]?.prompt).toEqual(path);
      path.push(...answer);
    }
    const answers = await Promise.all(made.completions.map(({ answer }) => spelt(answer)));
    expect(answers[2]).toContain("Nothing <|im_end|> new.");
    expect(made.completions[2]?.answer.at(-1)).toBe((await renderer.info()).stopTokenIds[0]);
  });

  test("masks choose what is learnt; what is not is context", async () => {
    const weighed = conversation.map((message, at) =>
      at === 2 ? { ...message, weight: 0 } : message,
    );
    const trainable = async (messages: object[], trainOn?: string) => {
      const { data } = await sft([{ messages, tools }], trainOn ? { trainOn } : {});
      return data().completions;
    };
    expect((await trainable(weighed)).map((c) => c.trainable)).toEqual([0, 1, 1]);
    expect((await trainable(conversation, "last_assistant")).map((c) => c.trainable)).toEqual([
      0, 0, 1,
    ]);
    const [whole, ...none] = await trainable(conversation, "all");
    expect(none).toEqual([]);
    expect(whole?.prompt).toHaveLength(1);
    const paths = (await trainable(conversation)).flatMap((c) => [...c.prompt, ...c.answer]);
    expect([...(whole?.prompt ?? []), ...(whole?.answer ?? [])]).toEqual(paths);
  });

  test("what is too long or says nothing is left out with its reason; a cursor moves all the same", async () => {
    const short = {
      messages: [
        { role: "user", content: "Hi" },
        { role: "assistant", content: "Hello" },
      ],
    };
    const untrained = {
      messages: [short.messages[0], { role: "assistant", content: "no", weight: 0 }],
    };
    const long = {
      messages: [short.messages[0], { role: "assistant", content: "long ".repeat(50) }],
    };
    const before = (await server.call("GET", "/v1/models/m/state")).json.learnt;
    const { over, data } = await sft([long, short, untrained], { maxSequenceTokens: 40 });
    expect(over.result).toMatchObject({
      examples: 1,
      dropped: [
        { index: 0, reason: "too_long" },
        { index: 2, reason: "no_tokens" },
      ],
    });
    expect(data().completions).toHaveLength(1);
    const none = await sft([untrained], {}, { cursor: { at: 7 } });
    expect(none.over.result).toMatchObject({ trained: false, step: before + 1, checkpoint: null });
    expect((await server.call("GET", "/v1/models/m/state")).json).toMatchObject({
      learnt: before + 1,
      cursor: { at: 7 },
    });
  });

  test("an evaluation leaves policy and cursor where they are", async () => {
    const before = (await server.call("GET", "/v1/models/m/state")).json;
    const { over, data } = await sft(
      [{ messages: conversation, tools }],
      {},
      { evaluate: true, cursor: { at: 9 } },
    );
    expect(over).toMatchObject({
      status: "succeeded",
      result: { trained: false, step: before.learnt, metrics: { loss: 0.5 } },
    });
    expect(data().config).toMatchObject({ evaluate: true, step: before.learnt + 1 });
    expect((await server.call("GET", "/v1/models/m/state")).json).toEqual(before);
  });

  test("a rollout is imitated by the ids that were sampled, as often as wanted", async () => {
    const [member] = await rolloutsWith(server, [1], {
      sampled: Int32Array.of(70, 71, 759),
      logprobs: Float32Array.of(-1, -1, -1),
    });
    for (let time = 0; time < 2; time++) {
      const { over, data } = await sft([{ rolloutId: member!.rolloutId }]);
      expect(over.status).toBe("succeeded");
      expect(data().completions).toMatchObject([{ prompt: [1, 2, 3], answer: [70, 71, 759] }]);
    }
    const whole = await sft(
      [member!, member!].map(({ rolloutId }) => ({ rolloutId })),
      {
        trainOn: "all",
      },
    );
    const every = { prompt: [1], answer: [2, 3, 70, 71, 759] };
    expect(whole.data().completions).toMatchObject([every, every]);
    const mine = await submit({ type: "sft", examples: [{ rolloutId: "ro_none" }] });
    const lost = await ended(server, mine.json.id);
    expect(lost.error).toMatchObject({ param: "op.examples[0].rolloutId" });
    expect(lost.error.message).toMatch(/^Example 0 \(from 0\) cannot be trained: /);
  });

  test("a message of weight 0 and every token cannot both be meant", async () => {
    const weighed = conversation.map((message, at) =>
      at === 2 ? { ...message, weight: 0 } : message,
    );
    const { over } = await sft([{ messages: weighed, tools }], { trainOn: "all" });
    expect(over).toMatchObject({ status: "failed", error: { code: "invalid_request" } });
    expect(over.error.message).toMatch(/message 2 has weight 0, and trainOn "all"/);
  });

  test("what the renderer cannot write is refused with its place and the renderer's words", async () => {
    const fine = { messages: conversation, tools };
    const odd = {
      messages: [
        { role: "user", content: "Hi" },
        {
          role: "assistant",
          tool_calls: [{ id: "c", type: "function", function: { name: "", arguments: "{}" } }],
        },
      ],
    };
    const { over } = await sft([fine, odd]);
    expect(over).toMatchObject({
      status: "failed",
      error: {
        code: "invalid_request",
        param: "op.examples[1].messages[1].tool_calls[0].function.name",
      },
    });
    expect(over.error.message).toMatch(/^Example 1 .*must be a non-empty string/);
  });

  test("a renderer that is away is waited for, and an abort ends the wait", async () => {
    away = true;
    const [kept, dropped] = [
      await submit({ type: "sft", examples: [{ messages: conversation, tools }] }),
      await submit({ type: "sft", examples: [{ messages: conversation, tools }] }),
    ];
    await expect
      .poll(async () => (await server.call("GET", `/v1/operations/${kept.json.id}`)).json.status)
      .toBe("running");
    await server.call("POST", `/v1/operations/${dropped.json.id}/abort`);
    expect(await ended(server, dropped.json.id)).toMatchObject({ status: "aborted" });
    away = false;
    expect(await ended(server, kept.json.id)).toMatchObject({ status: "succeeded" });
    away = true;
    const { json } = await submit({ type: "sft", examples: [{ messages: conversation, tools }] });
    await expect
      .poll(async () => (await server.call("GET", `/v1/operations/${json.id}`)).json.status)
      .toBe("running");
    await server.call("POST", `/v1/operations/${json.id}/abort`);
    expect(await ended(server, json.id)).toMatchObject({
      status: "aborted",
      error: { code: "aborted" },
    });
    away = false;
  });

  test("a limit above the context is refused", async () => {
    const { status, json } = await submit({
      type: "sft",
      examples: [{ messages: conversation, tools }],
      config: { maxSequenceTokens: 513 },
    });
    expect([status, json.error.param]).toEqual([400, "op.config.maxSequenceTokens"]);
  });

  test("a weight belongs to assistant messages and is 0 or 1", async () => {
    const with_ = (role: string, weight: unknown) => ({
      type: "sft",
      examples: [{ messages: [{ role, content: "x", weight }] }],
    });
    for (const [op, words] of [
      [with_("user", 1), /weight: is for assistant messages only/],
      [
        with_("assistant", 0.5),
        /weight: this value is not supported. Use one of 0, 1, or leave it out/,
      ],
    ] as const) {
      const { status, json } = await submit(op);
      expect(status).toBe(400);
      expect(json.error.message).toMatch(words);
    }
  });

  test("of a pair both sides go through the model together; what is equal teaches nothing", async () => {
    const prompt = conversation.slice(0, 2);
    const said = (content: string) => [{ role: "assistant", content }];
    const { over, data } = await run({
      type: "dpo",
      examples: [
        { prompt, chosen: said("A hat."), rejected: said("A dog.") },
        { prompt, chosen: said("Same."), rejected: said("Same.") },
      ],
      config: { maxTokensPerMicroBatch: 1 },
    });
    expect(over.result).toMatchObject({
      type: "dpo",
      examples: 1,
      dropped: [{ index: 1, reason: "zero_variance" }],
    });
    expect(data().config).toMatchObject({ loss: { type: "dpo", beta: 0.1 } });
    expect(data().config.plan[0]).toHaveLength(1);
    expect(data().config.plan[0][0].toSorted()).toEqual([0, 1]);
    expect(data().tensor("rollout_reward")).toEqual([1, 0]);
    const missing = await run({
      type: "dpo",
      examples: [{ prompt, chosen: said("a"), rejected: said("b") }],
      config: { reference: 99 },
    });
    expect(missing.over.error).toMatchObject({
      code: "policy_not_found",
      param: "op.config.reference",
    });
  });

  test("a reward model reads a pair's conversations whole, each at its last token", async () => {
    const prompt = conversation.slice(0, 2);
    const said = (content: string) => [{ role: "assistant" as const, content, weight: 1 as const }];
    const { over, data } = await run({
      type: "bradley_terry",
      examples: [{ prompt, tools, chosen: said("A hat."), rejected: said("A dog.") }],
      config: { maxTokensPerMicroBatch: 1, centering: 0.5 },
    });
    expect(over.result).toMatchObject({ type: "bradley_terry", trained: true, examples: 1 });
    const made = data();
    expect(made.config.loss).toEqual({ type: "bradley_terry", centering: 0.5 });
    expect(made.config.plan[0]).toHaveLength(1);
    expect(made.tensor("rollout_reward")).toEqual([1, 0]);
    for (const [at, answer] of ["A hat.", "A dog."].entries()) {
      const messages = [...prompt, { role: "assistant", content: answer }] as ChatMessage[];
      const whole = await renderer.conversation(messages, null);
      const { prompt: before, answer: read } = made.completions[at]!;
      expect([...before, ...read]).toEqual(whole);
      expect(read).toHaveLength(1);
      expect(await spelt(whole)).toContain(answer);
      // Nothing is to follow.
      const asked = await renderer.render(messages, null);
      expect(asked.length).toBeGreaterThan(whole.length);
      expect(asked.slice(0, whole.length)).toEqual(whole);
    }
  });
});
