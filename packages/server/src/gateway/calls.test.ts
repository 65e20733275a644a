import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { useEmbeddedGateway } from "../testing/embedded-gateway.ts";
import { workerPython } from "../testing/running-engine.ts";
import { createScriptedEngine } from "../testing/scripted-engine.ts";
import { serveGateway } from "../testing/served-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;
type Asked = Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>;
const question: Message = { role: "user", content: "Which way?" };
const way = z.strictObject({ way: z.enum(["left", "right"]), steps: z.int().min(0).max(9) });
const stay = z.strictObject({ why: z.enum(["tired", "<tool_call>"]) });
const answer = z.strictObject({ say: z.enum(["</tool_call>", "<tool_call>{}"]) });
const format = zodResponseFormat(answer, "answer");
const tools: OpenAI.ChatCompletionFunctionTool[] = [
  { type: "function", function: { name: "move", parameters: z.toJSONSchema(way) } },
  { type: "function", function: { name: "stay", parameters: z.toJSONSchema(stay) } },
];
const named = (name: string) => ({ type: "function" as const, function: { name } });

// The policy is a tiny one that calls nothing of its own accord: what is called here, the grammar held.
describe.skipIf(!workerPython())("calls that have to be", () => {
  const on = useEmbeddedGateway();
  let client: OpenAI;

  beforeAll(() => {
    client = on.gateway.client("ro_1");
  });

  const ask = { model: "m", messages: [question], tools, max_tokens: 400 };
  const choicesOf = async (more: Asked, n = 8) =>
    (await client.chat.completions.create({ ...ask, n, ...more })).choices;
  const callsOf = ({ message }: OpenAI.ChatCompletion.Choice) =>
    (message.tool_calls ?? []).map((call) => {
      if (call.type !== "function") throw new Error(call.type);
      return { name: call.function.name, args: JSON.parse(call.function.arguments) as unknown };
    });
  const schemas = { move: way, stay };

  it.each([1, 2, 3])(
    "calls and keeps to the tools' schemas with required, seed %i",
    async (seed) => {
      for (const choice of await choicesOf({ tool_choice: "required", seed })) {
        if (choice.finish_reason === "length") continue;
        expect(choice).toMatchObject({ finish_reason: "tool_calls", message: { content: null } });
        const calls = callsOf(choice);
        expect(calls.length).toBeGreaterThan(0);
        for (const { name, args } of calls) schemas[name as "move"].parse(args);
      }
      expect(on.gateway.ledger.of("ro_1").at(-1)).toMatchObject({ constrained: true, tools });
    },
  );

  it("calls the named tool, and of allowed tools no other", async () => {
    const single = { parallel_tool_calls: false };
    const allowed = (names: string[]): OpenAI.ChatCompletionAllowedToolChoice => ({
      type: "allowed_tools",
      allowed_tools: { mode: "required", tools: names.map(named) },
    });
    for (const tool_choice of [named("stay"), allowed(["stay"])]) {
      const choices = await choicesOf({ tool_choice, ...single, seed: 5 });
      expect(choices.map((choice) => callsOf(choice).map(({ name }) => name))).toEqual(
        Array.from({ length: 8 }, () => ["stay"]),
      );
    }
    const either = await choicesOf({ tool_choice: allowed(["move", "stay"]), ...single, seed: 5 });
    expect(new Set(either.flatMap(callsOf).map(({ name }) => name))).toEqual(
      new Set(["move", "stay"]),
    );
    expect(either.every((choice) => callsOf(choice).length === 1)).toBe(true);
  });

  it("holds a call that a Responses request asks for", async () => {
    const { output, tool_choice } = await client.responses.create({
      ...{ model: "m", input: "?", max_output_tokens: 400, parallel_tool_calls: false },
      tools: tools.map(({ function: { name, parameters } }) => ({
        ...{ type: "function" as const, name, strict: null },
        parameters: parameters ?? null,
      })),
      tool_choice: { type: "function", name: "stay" },
    });
    expect(tool_choice).toEqual({ type: "function", name: "stay" });
    expect(output).toEqual([expect.objectContaining({ type: "function_call", name: "stay" })]);
    expect(on.gateway.ledger.of("ro_1").at(-1)).toMatchObject({ constrained: true });
  });

  it("ends with the first call where only one may be, and goes on from there", async () => {
    const engine = createScriptedEngine(on.renderer);
    const scripted = await serveGateway(engine, on.renderer);
    const call = { name: "move", arguments: '{"way": "left", "steps": 1}' };
    const tool_calls = [{ id: "c", type: "function" as const, function: call }];
    // As an engine ends it at that token: the answer's own end was not sampled.
    const visible = `<tool_call>{"name": "move", "arguments": ${call.arguments}}</tool_call>`;
    const stopped = { answer: { content: null, tool_calls }, visible };
    engine.lines.push(stopped, { answer: { content: "ok" } });
    const said = await scripted
      .client("ro_1")
      .chat.completions.create({ ...ask, parallel_tool_calls: false });
    expect(said.choices[0]).toMatchObject({
      finish_reason: "tool_calls",
      message: { content: null, tool_calls: [{ function: call }] },
    });
    const { callEnd, stopTokenIds } = await on.renderer.info();
    expect(engine.requests[0]!.stopTokenIds).toEqual([...stopTokenIds, callEnd!.id]);
    expect(engine.requests[0]!.format).toBeNull();
    const { message } = said.choices[0]!;
    const result: Message = {
      role: "tool",
      tool_call_id: message.tool_calls![0]!.id,
      content: "done",
    };
    const messages = [question, message, result];
    await scripted.client("ro_1").chat.completions.create({ ...ask, messages });
    expect(engine.requests[1]!.stopTokenIds).toEqual(stopTokenIds);
    const [first, second] = scripted.ledger.of("ro_1");
    expect(first).toMatchObject({ constrained: false, splitReason: null });
    expect(first!.sampled.at(-1)).toBe(callEnd!.id);
    expect(second).toMatchObject({ parentId: first!.id, splitReason: null });
    await scripted.close();
  });

  it("calls or gives the final object, whatever its strings spell, streamed or not", async () => {
    const either = { response_format: format, parallel_tool_calls: false, seed: 11 };
    const choices = await choicesOf(either, 24);
    const called = choices.filter((choice) => callsOf(choice).length > 0);
    const final = choices.filter((choice) => callsOf(choice).length === 0);
    expect(called.length).toBeGreaterThan(0);
    expect(final.length).toBeGreaterThan(0);
    for (const choice of called) {
      const [{ name, args }] = callsOf(choice) as [{ name: "move"; args: unknown }];
      schemas[name].parse(args);
      expect(choice.message.content).toBeNull();
    }
    for (const { message, finish_reason: finish } of final) {
      answer.parse(JSON.parse(message.content!));
      expect(finish).toBe("stop");
    }
    const stream = client.chat.completions.stream({ ...ask, n: 24, ...either } as never);
    const told = (await stream.finalChatCompletion()).choices;
    expect(told.map((choice) => [choice.message.content || null, callsOf(choice)])).toEqual(
      choices.map((choice) => [choice.message.content, callsOf(choice)]),
    );
  });

  it("goes on from a held call token for token", async () => {
    const one = { tool_choice: "required" as const, parallel_tool_calls: false, seed: 2 };
    const [choice] = await choicesOf(one, 1);
    const [call] = choice!.message.tool_calls!;
    const result: Message = { role: "tool", tool_call_id: call!.id, content: "done" };
    await client.chat.completions.create({
      ...ask,
      messages: [question, choice!.message, result],
      max_tokens: 4,
    });
    const [first, second] = on.gateway.ledger.of("ro_1").slice(-2);
    expect(second).toMatchObject({ parentId: first!.id, splitReason: null, constrained: false });
  });

  it.each<[string, object, string, RegExp]>([
    ["no tools", { tools: [], tool_choice: "required" }, "tool_choice", /no tools/],
    ["an unknown tool", { tool_choice: named("fly") }, "tool_choice", /no tool "fly"/],
    [
      "fewer tools that need not be called",
      {
        tool_choice: {
          type: "allowed_tools",
          allowed_tools: { mode: "auto", tools: [named("stay")] },
        },
      },
      "tool_choice",
      /"required"/,
    ],
    [
      "arguments that no grammar holds",
      {
        tools: [named("a"), { type: "function", function: { name: "b", parameters: { not: {} } } }],
        tool_choice: "required",
      },
      "tools[1].function.parameters",
      /not/,
    ],
    [
      "arguments that are no object",
      {
        tools: [{ type: "function", function: { name: "b", parameters: { type: "string" } } }],
        tool_choice: "required",
      },
      "tools[0].function.parameters",
      /object/,
    ],
  ])("refuses %s by name", async (_what, more, param, said) => {
    const failure = await client.chat.completions.create({ ...ask, ...more }).catch((e) => e);
    expect(failure).toMatchObject({ status: 400, code: "unsupported_parameter", param });
    expect((failure as Error).message).toMatch(said);
  });
});
