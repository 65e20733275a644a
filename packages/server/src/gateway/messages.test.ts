import Anthropic from "@anthropic-ai/sdk";
import { HoneError } from "@hone/core";
import { beforeEach, describe, expect, it } from "vitest";
import { workerPython } from "../testing/running-engine.ts";
import { moveCall, useScriptedGateway } from "../testing/scripted-gateway.ts";

type Turn = Anthropic.MessageParam;

const tools: Anthropic.Tool[] = [
  {
    name: "move",
    input_schema: { type: "object", properties: {} },
    cache_control: { type: "ephemeral" },
  },
];
const bothWays = [false, true];
const ask: Turn[] = [{ role: "user", content: "Play." }];

describe.skipIf(!workerPython())("Anthropic's own client", () => {
  const on = useScriptedGateway();
  let client: Anthropic;
  beforeEach(() => {
    client = new Anthropic({
      baseURL: `${on.gateway.baseURL}/v1/rollouts/ro_1`,
      apiKey: "k",
      maxRetries: 0,
    });
  });
  const asked = (messages: Turn[], rest: Partial<Anthropic.MessageCreateParams> = {}) =>
    ({ model: "m", max_tokens: 100, messages, ...rest, stream: false }) as const;

  /** Streamed and whole in turn, so that each continues the other. */
  const say = async (
    streamed: boolean,
    messages: Turn[],
    rest: Partial<Anthropic.MessageCreateParams> = {},
  ) =>
    streamed
      ? client.messages.stream(asked(messages, rest)).finalMessage()
      : client.messages.create(asked(messages, rest));

  it("reads the same of a stream as of a whole answer", async () => {
    const answer = { content: "Left, I say.", reasoning_content: "a corner" };
    const events: string[] = [];
    on.engine.lines.push({ answer }, { answer });
    const whole = await say(false, ask);
    const stream = client.messages.stream(asked(ask));
    stream.on("streamEvent", ({ type }) => void events.push(type));
    const streamed = await stream.finalMessage();
    const same = { content: whole.content, stop_reason: "end_turn", usage: whole.usage };
    expect(streamed).toMatchObject(same);
    expect(whole.usage).toMatchObject({
      input_tokens: on.engine.requests[0]!.prompt.length,
      output_tokens: on.recorded()[0]!.sampled.length,
    });
    expect(events[0]).toBe("message_start");
    expect(events.slice(-2)).toEqual(["message_delta", "message_stop"]);
    expect(events.filter((type) => type === "content_block_start")).toHaveLength(2);
    expect(events.filter((type) => type === "content_block_stop")).toHaveLength(2);
  });

  it.each([false, true])(
    "says which stop sequence ended an answer (streamed: %s)",
    async (streamed) => {
      on.engine.lines.push({ answer: { content: "one, HALT two STOP" }, visible: "one, " });
      const answer = await say(streamed, ask, { stop_sequences: ["STOP", "HALT"] });
      expect(answer).toMatchObject({
        stop_reason: "stop_sequence",
        stop_sequence: "HALT",
        content: [{ type: "text", text: "one, " }],
      });
      expect(on.engine.requests[0]!.stop).toEqual(["STOP", "HALT"]);
    },
  );

  it("says where an answer was cut, and takes an empty one back", async () => {
    on.engine.lines.push({ answer: { content: "and so" }, cut: true }, { answer: { content: "" } });
    expect(await say(false, ask)).toMatchObject({ stop_reason: "max_tokens" });
    const empty = await say(true, ask);
    expect(empty).toMatchObject({ stop_reason: "end_turn", content: [] });
    on.engine.lines.push({ answer: { content: "x" } });
    await say(false, [
      ...ask,
      { role: "assistant", content: [] },
      { role: "user", content: "And?" },
    ]);
    expect(on.recorded()[2]!.parentId).toBe(on.recorded()[1]!.id);
  });

  it("counts the tokens that the prompt then has, in a conversation too", async () => {
    on.engine.lines.push({ answer: { content: "Left." } }, { answer: { content: "Up." } });
    const { content } = await say(false, ask, { tools });
    const messages: Turn[] = [
      ...ask,
      { role: "assistant", content },
      { role: "user", content: "And?" },
    ];
    const counted = await client.messages.countTokens({ model: "m", messages, tools });
    const { usage } = await say(false, messages, { tools });
    expect(counted.input_tokens).toBe(usage.input_tokens);
    expect(counted.input_tokens).toBe(on.engine.requests[1]!.prompt.length);
    expect(on.engine.requests).toHaveLength(2);
  });

  it.each(bothWays)("runs its own loop of tools (streamed: %s)", async (stream) => {
    on.engine.lines.push(
      { answer: { content: null, tool_calls: [moveCall('{"to": "up"}')] } },
      { answer: { content: "Done." } },
    );
    const moves: unknown[] = [];
    const loop = {
      ...{ model: "m", max_tokens: 100, messages: ask },
      tools: [
        {
          ...{ type: "custom" as const, name: "move", description: "Moves." },
          input_schema: { type: "object" as const },
          parse: (input: unknown) => input,
          run: (input: unknown) => {
            moves.push(input);
            return "moved";
          },
        },
      ],
    };
    // It asks for a thread first, is refused, and then repeats its conversation at each turn.
    const runner = stream
      ? client.beta.messages.toolRunner({ ...loop, stream: true })
      : client.beta.messages.toolRunner(loop);
    expect(await runner.runUntilDone()).toMatchObject({ content: [{ text: "Done." }] });
    expect(moves).toEqual([{ to: "up" }]);
    const [first, second] = on.recorded();
    expect(second).toMatchObject({ parentId: first!.id, splitReason: null, delivered: true });
    expect(on.gateway.counters.requests).toBe(2);
  });

  it("refuses a thread with the words and the mark of one that cannot be", async () => {
    const thread = client.beta.messages.thread({ model: "m", max_tokens: 10 });
    await expect(thread.send({ role: "user", content: "?" })).rejects.toMatchObject({
      status: 400,
      message: expect.stringContaining("continue_unthreaded"),
      error: { error: { param: "thread", details: { error_code: "thread_unsupported_request" } } },
    });
  });

  it("lists models in its own shape, page by page, and OpenAI's client in its", async () => {
    const plain = new Anthropic({ baseURL: on.gateway.baseURL, apiKey: "k", maxRetries: 0 });
    const all = (await on.gateway.client().models.list()).data.map(({ id }) => id);
    const ids: string[] = [];
    for await (const model of plain.models.list({ limit: 1 })) {
      expect(model).toMatchObject({ type: "model", display_name: model.id });
      expect(Date.parse(model.created_at)).not.toBeNaN();
      ids.push(model.id);
    }
    expect(ids).toEqual(all);
    expect(await plain.models.retrieve(all[0]!)).toMatchObject({ id: all[0], type: "model" });
    await expect(plain.models.retrieve("none")).rejects.toBeInstanceOf(Anthropic.NotFoundError);
  });

  it("gets errors in its own shape, before a stream and within one", async () => {
    const wrong = await client.messages
      .create({ ...asked(ask), ...{ top_k: 5 } })
      .catch((error: unknown) => error as InstanceType<typeof Anthropic.APIError>);
    expect(wrong).toBeInstanceOf(Anthropic.BadRequestError);
    expect(wrong).toMatchObject({
      status: 400,
      error: { type: "error", error: { type: "invalid_request_error", param: "top_k" } },
    });
    on.engine.lines.push({
      answer: { content: "one two three four" },
      dies: { after: 2, error: new HoneError("The engine is gone.", { code: "engine_error" }) },
    });
    const stream = client.messages.stream(asked(ask));
    await expect(stream.finalMessage()).rejects.toMatchObject({
      message: expect.stringContaining("The engine is gone."),
      error: {
        type: "error",
        error: { type: "api_error", code: "engine_error" },
        request_id: "r1",
      },
    });
    expect(on.recorded().every(({ delivered }) => !delivered)).toBe(true);
    const gone = await fetch(`${on.gateway.baseURL}/v1/messages/batches`, { method: "POST" });
    expect(gone.status).toBe(404);
    expect(await gone.json()).toMatchObject({
      type: "error",
      error: { type: "not_found_error", message: expect.stringContaining("POST /v1/messages") },
    });
  });
});
