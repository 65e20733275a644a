import type { ChatMessage } from "@hone/core";
import { describe, expect, it } from "vitest";
import { sameMessage, sameTools } from "./message-equality.ts";

const call = (args: string, id = "call_1") => ({
  id,
  type: "function" as const,
  function: { name: "move", arguments: args },
});
const answer = (rest: Record<string, unknown>): ChatMessage => ({ role: "assistant", ...rest });

describe("equality of messages", () => {
  it("takes null, empty and joined content for the same", () => {
    const forms = [{ content: null }, { content: "" }, {}, { content: [] }];
    for (const a of forms)
      for (const b of forms) expect(sameMessage(answer(a), answer(b))).toBe(true);
    const parts = [
      { type: "text", text: "le" },
      { type: "text", text: "ft" },
    ];
    expect(sameMessage(answer({ content: parts }), answer({ content: "left" }))).toBe(true);
    expect(sameMessage(answer({ content: "left " }), answer({ content: "left" }))).toBe(false);
  });

  it("takes a refusal for what was said, in whichever field it stands", () => {
    const sorry = answer({ content: "Sorry." });
    const forms = [
      { content: [{ type: "refusal", refusal: "Sorry." }] },
      { content: null, refusal: "Sorry." },
      { refusal: "Sorry." },
    ];
    for (const form of forms) expect(sameMessage(answer(form), sorry)).toBe(true);
    expect(sameMessage(answer({ refusal: "No." }), sorry)).toBe(false);
    expect(sameMessage(answer({ content: "Sorry.", refusal: null }), sorry)).toBe(true);
  });

  it("compares arguments as JSON", () => {
    const a = answer({ content: null, tool_calls: [call('{"a": 1, "b": [1, 2]}')] });
    const same = answer({ content: "", tool_calls: [call('{"b":[1,2],"a":1.0}', "other")] });
    expect(sameMessage(same, a)).toBe(true);
    for (const other of [
      '{"a": 1, "b": [2, 1]}',
      '{"a": 1}',
      '{"a": 1, "b": [1, 2], "c": null}',
      "{",
    ]) {
      expect(sameMessage(answer({ tool_calls: [call(other)] }), a)).toBe(false);
    }
    expect(sameMessage(answer({}), a)).toBe(false);
    expect(
      sameMessage(
        answer({ tool_calls: [call("{"), call("{")] }),
        answer({ tool_calls: [call("{")] }),
      ),
    ).toBe(false);
  });

  it("does not mind reasoning that was left out, and minds another one", () => {
    const recorded = answer({ content: "left", reasoning_content: "corner" });
    expect(sameMessage(answer({ content: "left" }), recorded)).toBe(true);
    expect(sameMessage(answer({ content: "left", reasoning_content: "corner" }), recorded)).toBe(
      true,
    );
    expect(sameMessage(answer({ content: "left", reasoning_content: "edge" }), recorded)).toBe(
      false,
    );
  });

  it("compares the rest of other messages", () => {
    const user = (rest: Record<string, unknown>) => ({ role: "user", ...rest }) as ChatMessage;
    expect(sameMessage(user({ content: "a", name: null }), user({ content: "a" }))).toBe(true);
    expect(sameMessage(user({ content: "a", name: "x" }), user({ content: "a" }))).toBe(false);
    expect(sameMessage(user({ content: "a" }), answer({ content: "a" }))).toBe(false);
  });

  it("compares tools by value", () => {
    const tool = (parameters: Record<string, unknown>) => ({
      type: "function" as const,
      function: { name: "move", parameters },
    });
    expect(sameTools([tool({ a: 1, b: 2 })], [tool({ b: 2, a: 1 })])).toBe(true);
    expect(sameTools([tool({ a: 1 })], [tool({ a: 2 })])).toBe(false);
    expect(sameTools(null, [])).toBe(true);
  });

  it("survives arguments nested too deeply to compare", () => {
    const deep = "[".repeat(200_000) + "]".repeat(200_000);
    expect(
      sameMessage(answer({ tool_calls: [call(deep)] }), answer({ tool_calls: [call(deep)] })),
    ).toBe(true);
  });
});
