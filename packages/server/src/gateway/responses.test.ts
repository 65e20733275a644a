import OpenAI from "openai";
import { beforeEach, describe, expect, it } from "vitest";
import { HoneError, responsesEventSchema } from "@hone/core";
import { workerPython } from "../testing/running-engine.ts";
import { moveCall, useScriptedGateway } from "../testing/scripted-gateway.ts";

type Item = OpenAI.Responses.ResponseInputItem;
type Params = Partial<OpenAI.Responses.ResponseCreateParamsNonStreaming>;

const tools: OpenAI.Responses.FunctionTool[] = [
  {
    type: "function",
    name: "move",
    parameters: { type: "object", properties: {} },
    strict: false,
  },
];
const ask: Item[] = [{ role: "user", content: "Play." }];

describe.skipIf(!workerPython())("OpenAI's own client of Responses", () => {
  const on = useScriptedGateway();
  let client: OpenAI;
  beforeEach(() => {
    client = on.client;
  });

  /** Streamed and whole in turn, so that each continues the other. */
  const say = async (streamed: boolean, input: Item[] | string, rest: Params = {}) => {
    const body = { model: "m", input, ...rest };
    if (!streamed) return client.responses.create({ ...body, stream: false });
    return client.responses.stream(body as never).finalResponse();
  };

  it("plays turns with thoughts, parallel calls and a failed one, each turn extending the last", async () => {
    const input: Item[] = [...ask];
    for (let turn = 0; turn < 4; turn++) {
      on.engine.lines.push({
        answer: {
          content: "Look. ",
          reasoning_content: `It is turn ${turn}.`,
          tool_calls: [moveCall('{"to": "up", "n": 1.0}'), moveCall('{"é😀": ["\\n", null]}')],
        },
      });
      const { output, status, model } = await say(turn % 2 === 0, input, {
        tools,
        instructions: "You play.",
      });
      expect({ status, model }).toEqual({ status: "completed", model: "m@1" });
      expect(output).toMatchObject([
        { type: "reasoning", content: [{ text: `It is turn ${turn}.` }] },
        { type: "message", content: [{ type: "output_text" }] },
        { type: "function_call", name: "move" },
        { type: "function_call", name: "move" },
      ]);
      const calls = output.flatMap((item) => (item.type === "function_call" ? [item] : []));
      input.push(
        ...(output as Item[]),
        ...calls.map(({ call_id }, i) => ({
          type: "function_call_output" as const,
          call_id,
          output: i === 0 ? "ok" : "Error: no such place",
        })),
      );
    }
    const recorded = on.recorded();
    expect(recorded).toHaveLength(4);
    for (const [i, { parentId, splitReason, delivered }] of recorded.entries()) {
      expect(parentId).toBe(recorded[i - 1]?.id ?? null);
      expect(splitReason).toBeNull();
      expect(delivered).toBe(true);
    }
    const [first, second] = on.engine.requests;
    const before = [...first!.prompt, ...recorded[0]!.sampled];
    expect(second!.prompt.slice(0, before.length)).toEqual(before);
    expect(recorded[3]!.messages.slice(0, 5)).toMatchObject([
      { role: "system", content: "You play." },
      { role: "user", content: "Play." },
      { role: "assistant", tool_calls: [{}, {}] },
      { role: "tool", content: "ok" },
      { role: "tool", content: "Error: no such place" },
    ]);
  });

  it("reads the same of a stream as of a whole answer, in numbered events", async () => {
    const answer = { content: "Left, I say.", reasoning_content: "a corner" };
    on.engine.lines.push({ answer }, { answer });
    const whole = await say(false, "Play.");
    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    const stream = client.responses.stream({ model: "m", input: "Play." });
    stream.on("event", (event) => void events.push(event));
    const streamed = await stream.finalResponse();
    expect(streamed.output_text).toBe("Left, I say.");
    expect(streamed.output_text).toBe(whole.output_text);
    expect(streamed.usage).toEqual(whole.usage);
    expect(streamed.output.map(({ type }) => type)).toEqual(whole.output.map(({ type }) => type));
    expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, i) => i));
    for (const event of events) responsesEventSchema.parse(event);
    expect(events.at(0)!.type).toBe("response.created");
    expect(events.at(-1)!.type).toBe("response.completed");
  });

  it.each([false, true])("says that an answer was cut (streamed: %s)", async (streamed) => {
    on.engine.lines.push({ answer: { content: "and so" }, cut: true });
    const cut = await say(streamed, ask, { max_output_tokens: 4 });
    expect(cut).toMatchObject({
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      output: [{ type: "message", status: "incomplete" }],
    });
    expect(on.engine.requests[0]!.maxTokens).toBe(4);
  });

  it.each([false, true])("takes an empty answer back (streamed: %s)", async (streamed) => {
    on.engine.lines.push({ answer: { content: "" } }, { answer: { content: "x" } });
    const { output } = await say(streamed, ask);
    await say(false, [...ask, ...(output as Item[]), { role: "user", content: "And?" }]);
    expect(on.recorded()[1]!.parentId).toBe(on.recorded()[0]!.id);
  });

  it("holds the answer to text.format", async () => {
    on.engine.lines.push({ answer: { content: "{}" } });
    const schema = { type: "object", properties: {}, additionalProperties: false };
    const format = { type: "json_schema" as const, name: "it", schema };
    await say(false, ask, { text: { format } });
    expect(on.engine.requests[0]!.format).toMatchObject({ type: "json_schema" });
    expect(on.recorded()[0]!.constrained).toBe(true);
  });

  it("throws a failure within a stream, and nothing of it trains", async () => {
    on.engine.lines.push({
      answer: { content: "one two three four" },
      dies: { after: 2, error: new HoneError("The engine is gone.", { code: "engine_error" }) },
    });
    const types: string[] = [];
    const stream = client.responses.stream({ model: "m", input: "?" });
    stream.on("event", ({ type }) => void types.push(type));
    await expect(stream.finalResponse()).rejects.toThrow("The engine is gone.");
    expect(types.at(-1)).toBe("response.failed");
    expect(on.recorded().every(({ delivered }) => !delivered)).toBe(true);
  });

  it.each([
    ["previous_response_id", "resp_1", "input"],
    ["background", true, "wait"],
    ["tool_choice", "required", "no tools"],
    ["truncation", "auto", "shorten"],
    ["tools", [{ type: "web_search" }], "function"],
    ["conversation", "conv_1", "input"],
  ])("refuses %s by name", async (key, value, instead) => {
    const refused = client.responses.create({ model: "m", input: "?", [key]: value } as never);
    await expect(refused).rejects.toMatchObject({
      status: 400,
      param: expect.stringContaining(key),
      message: expect.stringContaining(instead),
    });
  });
});
