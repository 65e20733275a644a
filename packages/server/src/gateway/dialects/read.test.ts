import { describe, expect, it } from "vitest";
import { readChat } from "./chat/read.ts";
import { readCompletion } from "./completions/read.ts";

const messages = [{ role: "user" as const, content: "?" }];
const tools = [{ type: "function" as const, function: { name: "go" } }];
const open = { model: "m", n: 1, temperature: 1, topP: 1, seed: null, stop: [], stream: false };

describe("what a request asks for", () => {
  it("is the same in every dialect where nothing is said", () => {
    expect(readChat({ model: "m", messages, tools: [] })).toEqual({
      ...open,
      kind: "chat",
      param: "messages",
      messages,
      tools: null,
      callable: null,
      format: null,
      maxTokens: null,
      logprobs: null,
    });
    expect(readCompletion({ model: "m", prompt: "?" })).toEqual({
      ...open,
      kind: "text",
      promptLogprobs: false,
      param: "prompt",
      prompt: "?",
      maxTokens: 16,
      logprobs: null,
    });
  });

  it("keeps tools in the prompt that may not be called", () => {
    const ask = readChat({ model: "m", messages, tools, tool_choice: "none" });
    expect(ask).toMatchObject({ tools, callable: null });
    expect(readChat({ model: "m", messages, tools })).toMatchObject({ callable: tools });
  });

  it("calls as tool_choice says", () => {
    const two = [...tools, { type: "function" as const, function: { name: "stay" } }];
    const read = (more: object) => readChat({ model: "m", messages, tools: two, ...more });
    const stay = { type: "function", function: { name: "stay" } };
    const allowed = (mode: string, names: object[]) => ({
      type: "allowed_tools",
      allowed_tools: { mode, tools: names },
    });
    expect(read({ tool_choice: "required" })).toMatchObject({ callable: two, mustCall: true });
    for (const choice of [stay, allowed("required", [stay])]) {
      const ask = read({ tool_choice: choice });
      expect(ask).toMatchObject({ tools: two, callable: [two[1]], mustCall: true });
    }
    // A named function is one call.
    expect(read({ tool_choice: stay })).toMatchObject({ oneCall: true });
    expect(read({ tool_choice: allowed("required", [stay]) })).not.toHaveProperty("oneCall");
    const all = read({ tool_choice: allowed("auto", [stay, two[0]!]) });
    expect(all).toEqual(read({ tool_choice: "auto" }));
    expect(all).not.toHaveProperty("mustCall");
    expect(read({ parallel_tool_calls: false })).toMatchObject({ oneCall: true });
    const none = read({ parallel_tool_calls: false, tool_choice: "none" });
    expect(none).toMatchObject({ tools: two, callable: null });
    for (const choice of [allowed("auto", [stay]), { ...stay, function: { name: "fly" } }]) {
      const refused = expect.objectContaining({ param: "tool_choice" });
      expect(() => read({ tool_choice: choice })).toThrow(refused);
    }
  });

  it("has logprobs without likeliest tokens where none are asked for", () => {
    expect(readChat({ model: "m", messages, logprobs: true }).logprobs).toBe(0);
    expect(readChat({ model: "m", messages, logprobs: true, top_logprobs: 3 }).logprobs).toBe(3);
    expect(readCompletion({ model: "m", prompt: "?", logprobs: 0 }).logprobs).toBe(0);
  });

  it("scores its prompt once: not for several choices, nor in a stream", () => {
    const request = { model: "m", prompt: "?", prompt_logprobs: 0 } as const;
    expect(readCompletion(request).promptLogprobs).toBe(true);
    for (const more of [{ n: 2 }, { stream: true }]) {
      const refused = expect.objectContaining({ param: "prompt_logprobs" });
      expect(() => readCompletion({ ...request, ...more })).toThrow(refused);
    }
  });

  it("is one prompt and one list of stop strings, however they are given", () => {
    const prompts = ["a", ["a"], [1, 2], [[1, 2]]].map(
      (prompt) => readCompletion({ model: "m", prompt }).prompt,
    );
    expect(prompts).toEqual(["a", "a", [1, 2], [1, 2]]);
    expect(readChat({ model: "m", messages, stop: "x" }).stop).toEqual(["x"]);
  });
});
