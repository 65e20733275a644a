import { HoneError, type ChatChunk, type ChatRequest } from "@hone/core";
import { describe, expect, it } from "vitest";
import type { AnswerEvent } from "../../answer-events.ts";
import { anAsk, eventsOf, usage } from "../../../testing/told.ts";
import { readChat } from "./read.ts";
import { writeChat } from "./write.ts";

const asked: ChatRequest = { model: "m", messages: [{ role: "user", content: "?" }] };

const call = { id: "call_1", type: "function" as const, function: { name: "go", arguments: "{}" } };
const token = { token: "a", logprob: -1, bytes: [97], top_logprobs: [] };
const told = { index: 0, ids: [1], logprobs: null };
const answer: AnswerEvent[] = [
  { type: "start" },
  { ...told, type: "text-delta", text: "a", logprobs: [token] },
  { ...told, type: "reasoning-delta", text: "hm" },
  { ...told, type: "calls", calls: [call] },
  { ...told, type: "finish", text: "", reason: "tool_calls" },
];

function streamed(request: ChatRequest, events: readonly AnswerEvent[]): ChatChunk[] {
  const writer = writeChat(request, anAsk(readChat(request)));
  return eventsOf(events.map((event) => writer.event(event)).join("")) as ChatChunk[];
}

describe("a chat's answer", () => {
  it("begins with the role of every choice, and ends each with its reason", () => {
    const chunks = streamed({ ...asked, n: 2 }, answer);
    expect(chunks.map(({ choices }) => choices[0])).toEqual([
      { index: 0, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null },
      { index: 1, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null },
      {
        index: 0,
        delta: { content: "a" },
        logprobs: { content: [token], refusal: null },
        finish_reason: null,
      },
      { index: 0, delta: { reasoning_content: "hm" }, logprobs: null, finish_reason: null },
      {
        index: 0,
        delta: { tool_calls: [{ index: 0, ...call }] },
        logprobs: null,
        finish_reason: null,
      },
      { index: 0, delta: {}, logprobs: null, finish_reason: "tool_calls" },
    ]);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks[0]).toMatchObject({ object: "chat.completion.chunk", model: "m@1" });
  });

  it("tells the usage where it is asked for, then that it is done", () => {
    const end = { type: "end" as const, usage };
    const writer = writeChat(asked, anAsk(readChat(asked)));
    expect(writer.event(end)).toBe("data: [DONE]\n\n");
    const request = { ...asked, stream: true, stream_options: { include_usage: true } };
    const [text, last, done] = streamed(request, [answer[1]!, end]);
    expect(text!.usage).toBeNull();
    expect(last).toMatchObject({ choices: [], usage });
    expect(done).toBe("[DONE]");
  });

  it("is not done where it failed", () => {
    const error = new HoneError("The engine ended.", { code: "engine_error" });
    expect(streamed(asked, [{ type: "failure", error }])).toEqual([error.toEnvelope()]);
  });

  it("is the same when it is told whole", () => {
    const writer = writeChat(asked, anAsk(readChat(asked)));
    const message = { role: "assistant" as const, content: "a", tool_calls: [call] };
    expect(
      writer.whole([{ ...told, logprobs: [token], message, finishReason: "tool_calls" }], usage),
    ).toMatchObject({
      object: "chat.completion",
      model: "m@1",
      choices: [
        {
          index: 0,
          message: { ...message, refusal: null },
          logprobs: { content: [token], refusal: null },
          finish_reason: "tool_calls",
        },
      ],
      usage,
    });
  });
});
