import { describe, expect, it } from "vitest";
import type OpenAI from "openai";
import { workerPython } from "../testing/running-engine.ts";
import { useScriptedGateway } from "../testing/scripted-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;

describe.skipIf(!workerPython())("what a policy samples, and what an agent sends back", () => {
  const on = useScriptedGateway();

  it("cuts a stop string out of the reasoning too", async () => {
    const answer = { content: "left", reasoning_content: "a corner, STOP there" };
    const stopped = { answer, visible: "<think>a corner, " };
    on.engine.lines.push(stopped, stopped);
    const asked = { model: "m", messages: [{ role: "user" as const, content: "?" }], stop: "STOP" };
    const { choices } = await on.client.chat.completions.create(asked);
    expect(choices[0]).toMatchObject({
      finish_reason: "stop",
      message: { content: "", reasoning_content: "a corner, " },
    });
    const deltas: OpenAI.ChatCompletionChunk.Choice.Delta[] = [];
    const stream = await on.client.chat.completions.create({ ...asked, stream: true });
    for await (const chunk of stream) deltas.push(chunk.choices[0]!.delta);
    expect(deltas).toContainEqual({ reasoning_content: "a corner, " });
    expect(deltas.some((delta) => delta.content)).toBe(false);
    // What was sampled is kept whole.
    expect(on.recorded()[0]!.sampled.length).toBeGreaterThan(5);
  });

  it("says where an answer is cut when more was asked for than the context holds", async () => {
    on.engine.lines.push({ answer: { content: "hi" } }, { answer: { content: "hi" } });
    const ask = async (most: number) => {
      const asked = { model: "m", messages: [{ role: "user" as const, content: "?" }] };
      const call = on.client.chat.completions.create({ ...asked, max_tokens: most }).withResponse();
      return (await call).response.headers.get("x-hone-max-tokens");
    };
    expect(await ask(100)).toBeNull();
    expect(await ask(1_000_000)).toBe(String(on.engine.requests[1]!.maxTokens));
    expect(on.engine.requests[1]!.maxTokens).toBe(8192 - on.engine.requests[1]!.prompt.length);
  });

  it.each([
    ["function_call", { name: "move", arguments: "{}" }],
    ["audio", { id: "a1" }],
  ])("refuses a history with %s, which nothing would read", async (key, value) => {
    const messages = [
      { role: "user", content: "?" },
      { role: "assistant", content: null, [key]: value },
    ] as Message[];
    await expect(on.say(messages)).rejects.toMatchObject({
      status: 400,
      param: `messages[1].${key}`,
      message: expect.stringContaining("is not read"),
    });
  });
});
