import { describe, expect, it } from "vitest";
import { collectAttempts } from "./attempts.ts";
import { task } from "../testing/group.test-support.ts";

const attemptsOf = (...answers: object[]) =>
  collectAttempts(
    answers.map((answer) => ({
      messages: [...task, { role: "assistant", content: "", ...answer }],
      tools: null,
    })),
  ).attempts;

const image = (url: string) => ({ content: [{ type: "image_url", image_url: { url } }] });
const audio = (data: string) => ({ content: [{ type: "input_audio", input_audio: { data } }] });

describe("attempts differ", () => {
  it.each<[string, object, object]>([
    ["in a refusal", { refusal: "I will not." }, { refusal: "I cannot." }],
    ["in a refusal's part", { content: [{ type: "refusal", refusal: "no" }] }, { content: null }],
    ["in reasoning_content", { reasoning_content: "a" }, { reasoning_content: "b" }],
    ["in reasoning", { reasoning: "a" }, { reasoning: "b" }],
    ["in thinking", { thinking: "a" }, { thinking: "b" }],
    [
      "in reasoning_details",
      { reasoning_details: [{ text: "a" }] },
      { reasoning_details: [{ text: "b" }] },
    ],
    [
      "in a part of thinking",
      { content: [{ type: "thinking", thinking: "a" }] },
      { content: [{ type: "thinking", thinking: "b" }] },
    ],
    [
      "in a legacy call",
      { function_call: { name: "f", arguments: "{}" } },
      { function_call: { name: "g", arguments: "{}" } },
    ],
    [
      "in a call's arguments as an object",
      { tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: { a: 1 } } }] },
      { tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: { a: 2 } } }] },
    ],
    ["in an image", image("data:image/png;base64,AAAA"), image("data:image/png;base64,AAAB")],
    ["in what was heard", audio("AAAA"), audio("AAAB")],
    ["in a name", { name: "a" }, { name: "b" }],
  ])("%s", (_, a, b) => {
    expect(attemptsOf(a, b)).toHaveLength(2);
    expect(attemptsOf(a, structuredClone(a))).toHaveLength(1);
  });

  it("and what is no text is named in its place", () => {
    const [attempt] = attemptsOf(
      {
        content: [{ type: "text", text: "Look: " }, ...image("data:image/png;base64,AAAA").content],
      },
      { content: "Nothing." },
    );
    expect(attempt?.messages.at(-1)?.content).toMatch(
      /^Look: \[image_url \d+ characters, \w{16}\]$/,
    );
  });

  it("not in the ids of their calls, nor in whose word for a thought it is", () => {
    const call = (id: string) => ({
      tool_calls: [{ id, type: "function", function: { name: "f", arguments: "{}" } }],
    });
    expect(attemptsOf(call("a"), call("b"))).toHaveLength(1);
    expect(attemptsOf({ reasoning: "a" }, { reasoning_content: "a" })).toHaveLength(1);
  });
});
