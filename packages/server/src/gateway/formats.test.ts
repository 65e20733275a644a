import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { useEmbeddedGateway } from "../testing/embedded-gateway.ts";
import { workerPython } from "../testing/running-engine.ts";
import { createScriptedEngine } from "../testing/scripted-engine.ts";
import { serveGateway } from "../testing/served-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;
const question: Message = { role: "user", content: "Which way?" };
const move = z.strictObject({ way: z.enum(["left", "right"]), sure: z.boolean() });
const format = zodResponseFormat(move, "move");

describe.skipIf(!workerPython())("response_format", () => {
  const on = useEmbeddedGateway();
  let client: OpenAI;

  beforeAll(() => {
    client = on.gateway.client("ro_1");
  });

  const ask = { model: "m", messages: [question], max_tokens: 60, seed: 4 };

  it("holds an answer to the schema that openai-node makes of a zod one", async () => {
    const { choices } = await client.chat.completions.parse({ ...ask, response_format: format });
    const { message, finish_reason: finish } = choices[0]!;
    expect(finish).toBe("stop");
    expect(move.parse(message.parsed)).toEqual(JSON.parse(message.content!));
    expect(on.gateway.ledger.of("ro_1").at(-1)).toMatchObject({
      constrained: true,
      delivered: true,
      answer: { role: "assistant", content: message.content },
    });
    await client.chat.completions.create(ask);
    expect(on.gateway.ledger.of("ro_1").at(-1)).toMatchObject({ constrained: false });
  });

  it.each([
    ["startsWith", z.strictObject({ a: z.string().startsWith("ab").max(9) })],
    ["endsWith and a null", z.strictObject({ a: z.string().endsWith("c").nullable() })],
    [
      "one of two kinds, by reference",
      z.strictObject({
        is: z.xor([
          z.strictObject({ kind: z.literal("cat") }).meta({ id: "Cat" }),
          z
            .strictObject({ kind: z.literal("dog"), age: z.int().min(0).max(9) })
            .meta({ id: "Dog" }),
        ]),
      }),
    ],
    ["a record of names", z.partialRecord(z.enum(["a", "b"]), z.boolean())],
  ])("holds %s, in each dialect of zod's", async (_name, schema) => {
    for (const target of ["draft-2020-12", "draft-7", "openapi-3.0"] as const) {
      const json_schema = { name: "x", schema: z.toJSONSchema(schema, { target }) };
      const { choices } = await client.chat.completions.create({
        ...ask,
        n: 4,
        max_tokens: 80,
        response_format: { type: "json_schema", json_schema },
      });
      for (const { message, finish_reason: finish } of choices) {
        if (finish === "stop") schema.parse(JSON.parse(message.content!));
      }
    }
  });

  it("refuses a schema that would take everything, for good, and goes on", async () => {
    const allOf = Array.from({ length: 60 }, (_, i) => ({ type: "string", pattern: `a.*X${i}` }));
    const endless = client.chat.completions.create({
      ...ask,
      response_format: { type: "json_schema", json_schema: { name: "x", schema: { allOf } } },
    });
    await expect(endless).rejects.toMatchObject({
      status: 400,
      type: "invalid_request_error",
      param: "response_format.json_schema.schema",
      headers: expect.toSatisfy((h: Headers) => h.get("x-should-retry") === "false"),
    });
    await client.chat.completions.create({ ...ask, response_format: format });
  });

  it("refuses a prompt that cannot fit before anyone tokenises it", async () => {
    const content = "left right ".repeat(700_000);
    const before = performance.now();
    const long = client.chat.completions.create({ ...ask, messages: [{ role: "user", content }] });
    await expect(long).rejects.toMatchObject({ status: 400, code: "context_length_exceeded" });
    const text = client.completions.create({ model: "m", prompt: content });
    await expect(text).rejects.toMatchObject({ status: 400, param: "prompt" });
    // To tokenise it takes as long as this test may.
    expect(performance.now() - before).toBeLessThan(30_000);
  });

  it("streams it as it sends it whole, with the logprobs of what was left to say", async () => {
    const request = { ...ask, response_format: format, logprobs: true, top_logprobs: 20 };
    const whole = (await client.chat.completions.create(request)).choices[0]!;
    const streamed = (await client.chat.completions.stream(request).finalChatCompletion())
      .choices[0]!;
    expect(streamed.message.content).toBe(whole.message.content);
    expect(streamed.finish_reason).toBe("stop");
    const tokens = streamed.logprobs!.content!;
    expect(tokens.map(({ token }) => token)).toEqual(
      whole.logprobs!.content!.map(({ token }) => token),
    );
    for (const { top_logprobs: top } of tokens) {
      const total = top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
      expect(total).toBeCloseTo(1, 3);
    }
  });

  it("says that the limit cut it", async () => {
    const cut = { ...ask, max_tokens: 4, response_format: format };
    const { choices } = await client.chat.completions.create(cut);
    expect(choices[0]).toMatchObject({ finish_reason: "length" });
    expect(choices[0]!.message.content!.startsWith('{"')).toBe(true);
  });

  it("holds it to any object, and to nothing where text is asked for", async () => {
    const json = await client.chat.completions.create({
      ...ask,
      response_format: { type: "json_object" },
    });
    const { finish_reason: finish, message } = json.choices[0]!;
    expect(message.content![0]).toBe("{");
    if (finish === "stop") expect(JSON.parse(message.content!)).toBeTypeOf("object");
    const text = { ...ask, response_format: { type: "text" as const } };
    const [free, same] = await Promise.all(
      [ask, text].map((request) => client.chat.completions.create(request)),
    );
    expect(same!.choices[0]!.message.content).toBe(free!.choices[0]!.message.content);
    expect(on.gateway.ledger.of("ro_1").slice(-2)).toMatchObject([
      { constrained: false },
      { constrained: false },
    ]);
  });

  it("goes on from it token for token", async () => {
    const inRollout = on.gateway.client("ro_2");
    const first = await inRollout.chat.completions.create({ ...ask, response_format: format });
    const messages: Message[] = [
      question,
      { role: "assistant", content: first.choices[0]!.message.content },
      { role: "user", content: "And now?" },
    ];
    await inRollout.chat.completions.create({ ...ask, messages });
    const [one, two] = on.gateway.ledger.of("ro_2");
    expect(two).toMatchObject({ parentId: one!.id, splitReason: null, constrained: false });
  });

  it("serves the AI SDK's objects", async () => {
    const provider = createOpenAICompatible({
      name: "hone",
      baseURL: `${on.gateway.baseURL}/v1/rollouts/ro_1/v1`,
      apiKey: "key",
      supportsStructuredOutputs: true,
    });
    const { output } = await generateText({
      model: provider("m"),
      output: Output.object({ schema: move }),
      prompt: "Which way?",
      maxOutputTokens: 60,
    });
    expect(move.parse(output)).toEqual(output);
  });

  it.each<[string, object, string, string, RegExp]>([
    [
      "what no engine holds",
      schemaOf({ type: "object", properties: { a: { type: "array", uniqueItems: true } } }),
      "unsupported_parameter",
      "response_format.json_schema.schema",
      /uniqueItems/,
    ],
    [
      "what another server would have to say",
      schemaOf({ $ref: "https://example.com/a.json" }),
      "unsupported_parameter",
      "response_format.json_schema.schema",
      /example\.com/,
    ],
    [
      "a wrong type",
      schemaOf({ type: "strin" }),
      "unsupported_parameter",
      "response_format.json_schema.schema",
      /strin/,
    ],
    [
      "no schema",
      { type: "json_schema", json_schema: { name: "a" } },
      "invalid_request",
      "response_format.json_schema.schema",
      /it is missing: it must be an object/,
    ],
    [
      "a name that OpenAI would not take",
      { type: "json_schema", json_schema: { name: "a b", schema: {} } },
      "invalid_request",
      "response_format.json_schema.name",
      /letters/,
    ],
    [
      "a schema as long as a book",
      schemaOf({ enum: ["x".repeat(70_000)] }),
      "invalid_request",
      "response_format.json_schema.schema",
      /at most/,
    ],
    [
      "a key that it does not know",
      { type: "json_object", schema: {} },
      "unsupported_parameter",
      "response_format.schema",
      /does not know/,
    ],
    ["another type", { type: "regex" }, "invalid_request", "response_format.type", /json_schema/],
  ])("refuses %s", async (_, wanted, code, param, said) => {
    const before = on.gateway.ledger.of("ro_1").length;
    for (const stream of [false, true]) {
      const failure = await client.chat.completions
        .create({ ...ask, stream, response_format: wanted as never })
        .catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(OpenAI.BadRequestError);
      expect(failure).toMatchObject({ status: 400, code, param });
      expect((failure as Error).message).toMatch(said);
    }
    expect(on.gateway.ledger.of("ro_1")).toHaveLength(before);
  });

  it("leaves no room for a call beside tools that may not be called", async () => {
    const tools: OpenAI.ChatCompletionTool[] = [{ type: "function", function: { name: "go" } }];
    const both = { ...ask, tools, response_format: format };
    const { choices } = await client.chat.completions.create({ ...both, tool_choice: "none" });
    expect(move.parse(JSON.parse(choices[0]!.message.content!))).toBeTruthy();
  });

  it.each([false, true])(
    "takes what the answer says of tool calls for text, streaming %s",
    async (stream) => {
      const engine = createScriptedEngine(on.renderer);
      const scripted = await serveGateway(engine, on.renderer);
      // A model may spell a mark of its template inside of a string.
      const content = '{"say": "<think>no</think> <tool_call>{\\"name\\": \\"go\\"}</tool_call>"}';
      engine.lines.push({ answer: { content } });
      const request = { ...ask, response_format: { type: "json_object" as const } };
      const completions = scripted.client("ro_1").chat.completions;
      const { choices } = stream
        ? await completions.stream(request).finalChatCompletion()
        : await completions.create(request);
      expect(choices[0]!.finish_reason).toBe("stop");
      expect(choices[0]!.message.tool_calls ?? []).toEqual([]);
      expect(choices[0]!.message.content).toBe(content);
      await scripted.close();
    },
  );
});

function schemaOf(schema: object): object {
  return { type: "json_schema", json_schema: { name: "a", strict: true, schema } };
}
