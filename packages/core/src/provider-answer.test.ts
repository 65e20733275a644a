import { describe, expect, it } from "vitest";
import { readProviderAnswer } from "./provider-answer.ts";
import { assistantMessage, toChatMessage } from "./provider-message.ts";
import { ProviderStream } from "./provider-stream.ts";

const chat = (message: object, rest: object = {}) => ({
  id: "x",
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop" }],
  usage: { prompt_tokens: 3, completion_tokens: 2 },
  ...rest,
});
const call = { id: "c1", name: "f", arguments: '{"a":1}' };
const nothing = { content: null, reasoning: null, refusal: null, calls: [] };

describe("a whole answer", () => {
  it.each<[string, object, object]>([
    ["text", chat({ content: "hi" }), { content: "hi" }],
    [
      "text in parts, with thinking",
      chat({
        content: [
          { type: "thinking", thinking: [{ type: "text", text: "so" }] },
          { type: "text", text: "h" },
          { type: "text", text: "i" },
        ],
      }),
      { content: "hi", reasoning: "so" },
    ],
    [
      "reasoning_content",
      chat({ content: "hi", reasoning_content: "so" }),
      { content: "hi", reasoning: "so" },
    ],
    ["reasoning", chat({ content: "hi", reasoning: "so" }), { content: "hi", reasoning: "so" }],
    [
      "reasoning and its details",
      chat({
        content: "hi",
        reasoning: "so",
        reasoning_details: [{ type: "reasoning.text", text: "so" }],
      }),
      { content: "hi", reasoning: "so" },
    ],
    [
      "reasoning_details",
      chat({ content: "hi", reasoning_details: [{ type: "reasoning.summary", summary: "so" }] }),
      { content: "hi", reasoning: "so" },
    ],
    ["thinking", chat({ content: "hi", thinking: "so" }), { content: "hi", reasoning: "so" }],
    ["a refusal", chat({ content: null, refusal: "no" }), { refusal: "no" }],
    [
      "a refusal as a part",
      chat({ content: [{ type: "refusal", refusal: "no" }] }),
      { refusal: "no" },
    ],
    [
      "a call",
      chat({
        content: null,
        tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: '{"a":1}' } }],
      }),
      { calls: [call] },
    ],
    [
      "a call without an id, its arguments an object",
      chat({ content: "", tool_calls: [{ function: { name: "f", arguments: { a: 1 } } }] }),
      { content: "", calls: [{ ...call, id: null }] },
    ],
    [
      "a legacy call",
      chat({ content: null, function_call: { name: "f", arguments: '{"a":1}' } }),
      { calls: [{ ...call, id: null }] },
    ],
    ["choices without an index", { choices: [{ message: { content: "hi" } }] }, { content: "hi" }],
    [
      "a completion",
      { choices: [{ index: 0, text: "hi", finish_reason: "stop" }] },
      { content: "hi" },
    ],
    [
      "the Responses API",
      {
        id: "resp_1",
        object: "response",
        status: "completed",
        output: [
          { type: "reasoning", summary: [{ type: "summary_text", text: "so" }] },
          { type: "message", role: "assistant", content: [{ type: "output_text", text: "hi" }] },
          { type: "function_call", call_id: "c1", name: "f", arguments: '{"a":1}' },
        ],
        usage: { input_tokens: 3, output_tokens: 2 },
      },
      { content: "hi", reasoning: "so", calls: [call] },
    ],
    [
      "Anthropic's Messages",
      {
        type: "message",
        role: "assistant",
        stop_reason: "tool_use",
        content: [
          { type: "thinking", thinking: "so", signature: "s" },
          { type: "text", text: "hi" },
          { type: "tool_use", id: "c1", name: "f", input: { a: 1 } },
        ],
        usage: { input_tokens: 3, output_tokens: 2 },
      },
      { content: "hi", reasoning: "so", calls: [call] },
    ],
    [
      "Ollama's chat",
      {
        model: "m",
        message: { role: "assistant", content: "hi", thinking: "so" },
        done_reason: "stop",
        eval_count: 2,
      },
      { content: "hi", reasoning: "so" },
    ],
  ])("as %s", (_, body, expected) => {
    const answer = readProviderAnswer(body);
    expect(answer).toMatchObject({ ...nothing, ...expected });
    expect(toChatMessage(assistantMessage(answer!))).toMatchObject({ role: "assistant" });
    expect(JSON.stringify(assistantMessage(answer!))).not.toContain("[object");
  });

  it("that is none is none", () => {
    for (const body of [
      null,
      "x",
      [],
      {},
      { error: { message: "no" } },
      { choices: [] },
      { data: [] },
    ]) {
      expect(readProviderAnswer(body)).toBeNull();
    }
  });

  it("names a part that is no text, and another part otherwise", () => {
    const shown = (url: string) =>
      readProviderAnswer(chat({ content: [{ type: "image_url", image_url: { url } }] }))?.content;
    expect(shown("data:a")).toMatch(/^\[image_url \d+ characters, [0-9a-f]{16}\]$/);
    expect(shown("data:a")).not.toBe(shown("data:b"));
    expect(shown("data:a")).toBe(shown("data:a"));
  });
});

describe("a streamed answer", () => {
  const delta = (fields: object, rest: object = {}) => ({
    choices: [{ index: 0, delta: fields, ...rest }],
  });
  const toolDelta = (fields: object) => delta({ tool_calls: [fields] });
  const end = delta({}, { finish_reason: "stop" });
  const two = [{ ...call }, { id: "c2", name: "g", arguments: "{}" }];

  it.each<[string, (object | string)[], object]>([
    [
      "chunks",
      [
        delta({ role: "assistant", content: "" }),
        delta({ content: "h" }),
        delta({ content: "i" }),
        end,
        "[DONE]",
      ],
      { content: "hi" },
    ],
    ["no [DONE]", [delta({ content: "hi" }), end], { content: "hi" }],
    [
      "no index",
      [{ choices: [{ delta: { content: "hi" }, finish_reason: "stop" }] }],
      { content: "hi" },
    ],
    [
      "parts",
      [
        delta({ content: [{ type: "text", text: "h" }] }),
        delta({ content: [{ type: "text", text: "i" }] }),
        end,
      ],
      { content: "hi" },
    ],
    [
      "thinking in parts",
      [
        delta({ content: [{ type: "thinking", thinking: [{ type: "text", text: "so" }] }] }),
        delta({ content: "hi" }),
        end,
      ],
      { content: "hi", reasoning: "so" },
    ],
    [
      "reasoning",
      [delta({ reasoning: "s" }), delta({ reasoning: "o" }), delta({ content: "hi" }), end],
      { content: "hi", reasoning: "so" },
    ],
    ["a refusal", [delta({ refusal: "n" }), delta({ refusal: "o" }), end], { refusal: "no" }],
    [
      "the whole message at its end",
      [{ choices: [{ index: 0, message: { content: "hi" }, delta: null, finish_reason: "stop" }] }],
      { content: "hi" },
    ],
    [
      "a message that repeats the deltas",
      [
        delta({ content: "hi" }),
        { choices: [{ index: 0, message: { content: "hi" }, finish_reason: "stop" }] },
      ],
      { content: "hi" },
    ],
    [
      "usage and empty chunks",
      [
        { choices: [] },
        delta({ content: "hi" }),
        end,
        { choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 } },
      ],
      { content: "hi", promptTokens: 3, completionTokens: 2 },
    ],
    [
      "calls by index",
      [
        toolDelta({ index: 0, id: "c1", function: { name: "f", arguments: "" } }),
        toolDelta({ index: 0, function: { arguments: '{"a"' } }),
        toolDelta({ index: 1, id: "c2", function: { name: "g", arguments: "{}" } }),
        toolDelta({ index: 0, function: { arguments: ":1}" } }),
        end,
      ],
      { calls: two },
    ],
    [
      "calls without an index",
      [
        toolDelta({ id: "c1", function: { name: "f", arguments: '{"a"' } }),
        toolDelta({ function: { arguments: ":1}" } }),
        toolDelta({ id: "c2", function: { name: "g", arguments: "{}" } }),
        end,
      ],
      { calls: two },
    ],
    [
      "calls without index and id",
      [
        toolDelta({ function: { name: "f", arguments: { a: 1 } } }),
        toolDelta({ function: { name: "g", arguments: {} } }),
        end,
      ],
      { calls: two.map((one) => ({ ...one, id: null })) },
    ],
    [
      "calls that all have index 0",
      [
        toolDelta({ index: 0, id: "c1", function: { name: "f", arguments: '{"a":1}' } }),
        toolDelta({ index: 0, id: "c2", function: { name: "g", arguments: "{}" } }),
        end,
      ],
      { calls: two },
    ],
    [
      "a name that is repeated",
      [
        toolDelta({ index: 0, id: "c1", function: { name: "f", arguments: '{"a"' } }),
        toolDelta({ index: 0, id: "c1", function: { name: "f", arguments: ":1}" } }),
        end,
      ],
      { calls: [call] },
    ],
    [
      "a legacy call",
      [
        delta({ function_call: { name: "f", arguments: "" } }),
        delta({ function_call: { arguments: '{"a":1}' } }),
        end,
      ],
      { calls: [{ ...call, id: null }] },
    ],
    [
      "a completion",
      [
        { choices: [{ index: 0, text: "h" }] },
        { choices: [{ index: 0, text: "i", finish_reason: "stop" }] },
      ],
      { content: "hi" },
    ],
    [
      "the Responses API",
      [
        { type: "response.created", response: { id: "resp_1" } },
        { type: "response.output_text.delta", delta: "h" },
        { type: "response.output_text.delta", delta: "i" },
        {
          type: "response.output_item.done",
          item: { type: "function_call", call_id: "c1", name: "f", arguments: '{"a":1}' },
        },
        {
          type: "response.completed",
          response: {
            id: "resp_1",
            status: "completed",
            output: [
              { type: "message", content: [{ type: "output_text", text: "hi" }] },
              { type: "function_call", call_id: "c1", name: "f", arguments: '{"a":1}' },
            ],
            usage: { input_tokens: 3, output_tokens: 2 },
          },
        },
      ],
      { id: "resp_1", content: "hi", calls: [call], promptTokens: 3 },
    ],
    [
      "Anthropic's Messages",
      [
        {
          type: "message_start",
          message: { id: "msg", model: "m", usage: { input_tokens: 3, output_tokens: 1 } },
        },
        {
          type: "content_block_start",
          index: 0,
          content_block: { type: "thinking", thinking: "" },
        },
        {
          type: "content_block_delta",
          index: 0,
          delta: { type: "thinking_delta", thinking: "so" },
        },
        { type: "content_block_start", index: 1, content_block: { type: "text", text: "" } },
        { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "hi" } },
        {
          type: "content_block_start",
          index: 2,
          content_block: { type: "tool_use", id: "c1", name: "f", input: {} },
        },
        {
          type: "content_block_delta",
          index: 2,
          delta: { type: "input_json_delta", partial_json: '{"a"' },
        },
        {
          type: "content_block_delta",
          index: 2,
          delta: { type: "input_json_delta", partial_json: ":1}" },
        },
        { type: "message_delta", delta: { stop_reason: "tool_use" }, usage: { output_tokens: 2 } },
        { type: "message_stop" },
      ],
      {
        content: "hi",
        reasoning: "so",
        calls: [call],
        finishReason: "tool_use",
        promptTokens: 3,
        completionTokens: 2,
      },
    ],
  ])("as %s", (_, events, expected) => {
    const stream = new ProviderStream();
    for (const event of events)
      stream.add(typeof event === "string" ? event : JSON.stringify(event));
    expect(stream.isDone).toBe(true);
    expect(stream.answer()).toMatchObject({ ...nothing, ...expected });
  });

  it("that never began is none, and one that broke off is not done", () => {
    const stream = new ProviderStream();
    stream.add("not json");
    stream.add(JSON.stringify({ error: { message: "no" } }));
    expect(stream.answer()).toBeNull();
    stream.add(JSON.stringify(delta({ content: "h" })));
    expect(stream.isDone).toBe(false);
    expect(stream.answer()).toMatchObject({ content: "h" });
  });
});
