/** What the clients' own stream readers are told of two calls and of a text, in which order. */
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText, type LanguageModel } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tools } from "./agents/ai-sdk.ts";
import { describe as described, question, schemas } from "./house.ts";
import { startScripted, type Scripted } from "./scripted.ts";

let scripted: Scripted;
beforeAll(async () => {
  scripted = await startScripted();
});
afterAll(() => scripted?.close());

const said = "In the chest.";
const asked = [{ where: "attic" }, { where: "hall" }];
const play = (kind: "calls" | "text") =>
  scripted.play([
    kind === "text"
      ? scripted.text(said)
      : scripted.calls(...asked.map((args): [string, object] => ["look", args])),
  ]);
const look = { name: "look", description: described.look, parameters: schemas.look };

describe("openai-node", () => {
  const connected = (kind: "calls" | "text") => {
    const { model, ...settings } = play(kind).connection();
    return { client: new OpenAI(settings), model };
  };
  const messages = [{ role: "user" as const, content: question }];

  it("hears of each call of a chat as it comes, and of each once when it is whole", async () => {
    const { client, model } = connected("calls");
    const chatTools = [{ type: "function" as const, function: look }];
    const stream = client.chat.completions.stream({ model, messages, tools: chatTools });
    const parts = new Map<number, string>();
    const done: { index: number; name: string; arguments: string }[] = [];
    stream.on("tool_calls.function.arguments.delta", ({ index, arguments_delta }) => {
      parts.set(index, (parts.get(index) ?? "") + arguments_delta);
    });
    stream.on("tool_calls.function.arguments.done", (event) => void done.push(event));
    const { choices } = await stream.finalChatCompletion();
    expect(done.map(({ index, name }) => [index, name])).toEqual([
      [0, "look"],
      [1, "look"],
    ]);
    expect(done.map((event) => JSON.parse(event.arguments) as object)).toEqual(asked);
    expect([...parts.values()]).toEqual(done.map((event) => event.arguments));
    expect(choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: null } });
  });

  it("hears the text of a chat in parts, and once as a whole", async () => {
    const { client, model } = connected("text");
    const stream = client.chat.completions.stream({ model, messages });
    let joined = "";
    const whole: string[] = [];
    stream.on("content.delta", ({ delta }) => void (joined += delta));
    stream.on("content.done", ({ content }) => void whole.push(content));
    const usage = await stream.totalUsage();
    expect([joined, whole]).toEqual([said, [said]]);
    expect(usage.completion_tokens).toBe(0); // told only to those who ask: stream_options.include_usage
  });

  it.each([
    {
      kind: "calls" as const,
      each: ["function_call_arguments.delta", "function_call_arguments.done"],
      items: 2,
    },
    {
      kind: "text" as const,
      each: ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"],
      items: 1,
    },
  ])("hears the events of a response in OpenAI's order: $kind", async ({ kind, each, items }) => {
    const { client, model } = connected(kind);
    const responsesTools = [{ type: "function" as const, strict: true, ...look }];
    const stream = client.responses.stream({ model, input: question, tools: responsesTools });
    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    for await (const event of stream) events.push(event);
    const item = ["output_item.added", ...each, "output_item.done"];
    const order = ["created", "in_progress", ...Array.from({ length: items }, () => item).flat()];
    // A text comes in many deltas.
    const kinds = events.map(({ type }) => type.replace(/^response\./, ""));
    expect(kinds.filter((type, i) => type !== kinds[i - 1])).toEqual([...order, "completed"]);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i));

    const { output } = await stream.finalResponse();
    const ended = events.flatMap((event) =>
      event.type === "response.output_item.done" ? [event] : [],
    );
    expect(ended.map(({ output_index }) => output_index)).toEqual(output.map((_, i) => i));
    expect(output).toMatchObject(ended.map((event) => event.item as object));
    const deltas = events.flatMap((event) =>
      event.type === "response.output_text.delta" ||
      event.type === "response.function_call_arguments.delta"
        ? [event]
        : [],
    );
    for (const [index, one] of output.entries()) {
      const own = deltas.filter(({ output_index }) => output_index === index);
      expect(own.every(({ item_id }) => item_id === one.id)).toBe(true);
      const joined = own.map(({ delta }) => delta).join("");
      if (one.type === "function_call") expect(JSON.parse(joined)).toEqual(asked[index]);
      else expect(joined).toBe(said);
    }
  });
});

describe.each<[string, (model: ReturnType<Scripted["play"]>) => LanguageModel]>([
  [
    "openai-compatible",
    (played) => {
      const { model, ...settings } = played.connection();
      return createOpenAICompatible({ name: "hone", ...settings })(model);
    },
  ],
  ["chat", (played) => createOpenAI(played.connection()).chat("m")],
  ["responses", (played) => createOpenAI(played.connection()).responses("m")],
])("the AI SDK's %s reader", (_name, modelOf) => {
  it("takes every chunk, and ends each part that it begins", async () => {
    for (const kind of ["calls", "text"] as const) {
      const { look: tool } = tools;
      const stream = streamText({
        model: modelOf(play(kind)),
        prompt: question,
        // Not run: only what is read counts here.
        tools: { look: { ...tool, execute: undefined } as unknown as typeof tool },
      });
      const parts: { type: string }[] = [];
      for await (const part of stream.fullStream) parts.push(part);
      const of = (type: string) => parts.filter((part) => part.type === type);
      expect(of("error")).toEqual([]);
      const calls = kind === "calls" ? 2 : 0;
      expect(of("tool-call")).toMatchObject(asked.slice(0, calls).map((input) => ({ input })));
      for (const type of ["tool-input-start", "tool-input-end"])
        expect(of(type)).toHaveLength(calls);
      // The role comes first, with an empty content, which one of the readers takes for a text.
      expect(of("text-end")).toHaveLength(of("text-start").length);
      expect(await stream.text).toBe(kind === "text" ? said : "");
      expect(of("finish")).toMatchObject([
        { finishReason: kind === "text" ? "stop" : "tool-calls" },
      ]);
    }
  });
});
