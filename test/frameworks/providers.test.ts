/**
 * What the tests of the AI SDK's own providers look for in a provider's answers, looked for in ours: parts in their
 * order, ids, usage, reasons and errors, by `doGenerate` and `doStream`, beneath everything that the SDK adds.
 */
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { HoneError } from "@hone/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describe as described, question, schemas } from "./house.ts";
import { startScripted, type Scripted } from "./scripted.ts";

let scripted: Scripted;
beforeAll(async () => {
  scripted = await startScripted();
});
afterAll(() => scripted?.close());

type Model = ReturnType<ReturnType<typeof createAnthropic>>;
type Played = ReturnType<Scripted["play"]>;
type Line = Parameters<Scripted["play"]>[0][number];

const prompt = [{ role: "user" as const, content: [{ type: "text" as const, text: question }] }];
const tools = [
  {
    ...{ type: "function" as const, name: "look", description: described.look },
    // The house writes its schemas as plain objects.
    inputSchema: schemas.look as object,
  },
];
const options = { prompt, tools };

const providers = {
  "openai-compatible": (played: Played) => {
    const { model, ...settings } = played.connection();
    return createOpenAICompatible({ name: "hone", ...settings, includeUsage: true })(model);
  },
  "openai chat": (played: Played) => createOpenAI(played.connection()).chat("m"),
  "openai responses": (played: Played) => createOpenAI(played.connection()).responses("m"),
  anthropic: (played: Played) => {
    const { baseURL, apiKey, fetch } = played.connection();
    return createAnthropic({ baseURL, apiKey, fetch })("m");
  },
} as const;

/** The parts of a stream in their order, each kind once where it repeats itself. */
async function partsOf(model: Model) {
  const { stream } = await model.doStream({ ...options, includeRawChunks: false });
  const parts = [];
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    parts.push(next.value);
  }
  const kinds = parts.map(({ type }) => type).filter((type, at, all) => type !== all[at - 1]);
  return { parts, kinds };
}

const text = (content: string, rest: object = {}): Line => ({ answer: { content, ...rest } });

describe.each(Object.entries(providers))("%s", (name, modelOf) => {
  const model = (line: Line) => modelOf(scripted.play([line]));
  // OpenAI tells of its models' thoughts by summaries alone, so its provider reads nothing else.
  const readsThoughts = !name.startsWith("openai ");

  it("reads a text, its usage, its reason and where it came from", async () => {
    const whole = await model(text("In the chest.")).doGenerate(options);
    expect(whole.content).toMatchObject([{ type: "text", text: "In the chest." }]);
    expect(whole.finishReason).toMatchObject({ unified: "stop" });
    const [{ sampled } = { sampled: [] }] = scripted.recorded();
    expect(whole.usage.inputTokens.total).toBe(scripted.requests()[0]!.prompt.length);
    expect(whole.usage.outputTokens.total).toBe(sampled.length);
    expect(whole.response).toMatchObject({ id: expect.any(String), modelId: expect.any(String) });

    const { parts, kinds } = await partsOf(model(text("In the chest.")));
    expect(kinds.filter((kind) => kind !== "response-metadata")).toEqual([
      ...["stream-start", "text-start", "text-delta", "text-end", "finish"],
    ]);
    const deltas = parts.flatMap((part) => (part.type === "text-delta" ? [part.delta] : []));
    expect(deltas.join("")).toBe("In the chest.");
    const metadata = parts.filter(({ type }) => type === "response-metadata");
    expect(metadata[0]).toMatchObject({ id: expect.any(String), modelId: expect.any(String) });
    expect(parts.at(-1)).toMatchObject({
      ...{ type: "finish", finishReason: { unified: "stop" } },
    });
    const finish = parts.at(-1) as { usage: typeof whole.usage };
    expect(finish.usage.outputTokens.total).toBe(sampled.length);
  });

  it.skipIf(!readsThoughts)("reads thoughts before the text", async () => {
    const line = text("In the chest.", { reasoning_content: "Not in the hall." });
    const whole = await model(line).doGenerate(options);
    expect(whole.content).toMatchObject([
      { type: "reasoning", text: "Not in the hall." },
      { type: "text", text: "In the chest." },
    ]);
    const { parts, kinds } = await partsOf(model(line));
    expect(kinds.filter((kind) => /^(reasoning|text)/.test(kind))).toEqual([
      ...["reasoning-start", "reasoning-delta", "reasoning-end"],
      ...["text-start", "text-delta", "text-end"],
    ]);
    const thought = parts.flatMap((part) => (part.type === "reasoning-delta" ? [part.delta] : []));
    expect(thought.join("")).toBe("Not in the hall.");
  });

  it("reads parallel calls, one without arguments, each begun, told and ended once", async () => {
    const line = scripted.calls(["look", { where: "attic" }], ["look", {}]);
    const inputs = [{ where: "attic" }, {}];
    const whole = await model(line).doGenerate(options);
    const calls = whole.content.flatMap((part) => (part.type === "tool-call" ? [part] : []));
    expect(calls.map(({ toolName }) => toolName)).toEqual(["look", "look"]);
    expect(calls.map(({ input }) => JSON.parse(input) as object)).toEqual(inputs);
    expect(new Set(calls.map(({ toolCallId }) => toolCallId)).size).toBe(2);
    expect(whole.finishReason).toMatchObject({ unified: "tool-calls" });

    const { parts } = await partsOf(model(line));
    const of = (type: string) => parts.filter((part) => part.type === type) as { id?: string }[];
    expect(of("tool-input-start")).toHaveLength(2);
    expect(of("tool-input-end")).toEqual(
      of("tool-input-start").map(({ id }) => expect.objectContaining({ id })),
    );
    const told = parts.flatMap((part) => (part.type === "tool-call" ? [part] : []));
    expect(told.map(({ input }) => JSON.parse(input) as object)).toEqual(inputs);
    expect(told.map(({ toolCallId }) => toolCallId)).toEqual(
      of("tool-input-start").map(({ id }) => id),
    );
    for (const [at, { toolCallId }] of told.entries()) {
      const deltas = parts.flatMap((part) =>
        part.type === "tool-input-delta" && part.id === toolCallId ? [part.delta] : [],
      );
      expect(JSON.parse(deltas.join("") || "{}")).toEqual(inputs[at]);
    }
    expect(parts.at(-1)).toMatchObject({ finishReason: { unified: "tool-calls" } });
  });

  it("is told that a limit cut the answer", async () => {
    const line: Line = { ...text("In the"), cut: true };
    expect(await model(line).doGenerate(options)).toMatchObject({
      finishReason: { unified: "length" },
    });
    const { parts } = await partsOf(model(line));
    expect(parts.at(-1)).toMatchObject({ finishReason: { unified: "length" } });
  });

  it("is told of a failure within a stream as an error, with its words", async () => {
    const error = new HoneError("The engine is gone.", { code: "engine_error" });
    const { parts, kinds } = await partsOf(
      model({ ...text("one two three four five"), dies: { after: 3, error } }),
    );
    expect(kinds).toContain("error");
    const told = parts.find(({ type }) => type === "error") as unknown as { error: unknown };
    expect(JSON.stringify(told.error) + String(told.error)).toContain("The engine is gone.");
    const finish = parts.find(({ type }) => type === "finish");
    if (finish) expect(finish).not.toMatchObject({ finishReason: { unified: "stop" } });
  });
});
