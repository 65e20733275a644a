import type { CompletionRequest, TextChunk } from "@hone/core";
import { describe, expect, it } from "vitest";
import type { AnswerEvent } from "../../answer-events.ts";
import { anAsk, eventsOf, usage } from "../../../testing/told.ts";
import { readCompletion } from "./read.ts";
import { writeCompletion } from "./write.ts";

const asked: CompletionRequest = { model: "m", prompt: "Once" };
const text = (said: string, ids: number[]): AnswerEvent => ({
  type: "text-delta",
  index: 0,
  text: said,
  ids,
  logprobs: null,
});
const finish = { type: "finish" as const, index: 0, ids: [3], logprobs: null };

function streamed(request: CompletionRequest, events: readonly AnswerEvent[]): TextChunk[] {
  const writer = writeCompletion(request, anAsk(readCompletion(request)));
  return eventsOf(events.map((event) => writer.event(event)).join("")) as TextChunk[];
}

describe("a plain prompt's answer", () => {
  it("tells nothing before there is text, and the last text with the reason", () => {
    const said = streamed(asked, [
      { type: "start" },
      text("", [1]),
      text("up", [2]),
      { ...finish, text: " on", reason: "length" },
    ]);
    expect(said.map(({ choices }) => choices[0])).toEqual([
      { index: 0, text: "up", logprobs: null, finish_reason: null },
      { index: 0, text: " on", logprobs: null, finish_reason: "length" },
    ]);
    expect(said[0]).toMatchObject({ object: "text_completion", model: "m@1" });
  });

  it("tells ids where they are asked for, the prompt's with the first", () => {
    const request = { ...asked, return_token_ids: true };
    const said = streamed(request, [text("", [1]), { ...finish, text: "a", reason: "stop" }]);
    expect(said.map(({ choices }) => choices[0])).toMatchObject([
      { text: "", token_ids: [1], prompt_token_ids: [7, 8] },
      { text: "a", token_ids: [3] },
    ]);
    expect(said[1]!.choices[0]).not.toHaveProperty("prompt_token_ids");
  });

  it("ends with the usage where it is asked for", () => {
    const request = { ...asked, stream: true, stream_options: { include_usage: true } };
    const [last, done] = streamed(request, [{ type: "end", usage }]);
    expect(last).toMatchObject({ choices: [], usage });
    expect(done).toBe("[DONE]");
  });
});
