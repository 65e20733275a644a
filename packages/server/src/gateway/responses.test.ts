import OpenAI from "openai";
import { beforeEach, describe, expect, it } from "vitest";
import { HoneError, responsesEventSchema } from "@hone/core";
import { workerPython } from "../testing/running-engine.ts";
import { useScriptedGateway } from "../testing/scripted-gateway.ts";

type Item = OpenAI.Responses.ResponseInputItem;
type Params = Partial<OpenAI.Responses.ResponseCreateParamsNonStreaming>;

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

  it.each([true, false])(
    "keeps two answers that follow each other apart (ids sent back: %s)",
    async (withIds) => {
      const sent = (output: OpenAI.Responses.ResponseOutputItem[]): Item[] =>
        output.map((item) => {
          const { id: _, ...rest } = item as { id?: string };
          return (withIds ? item : rest) as Item;
        });
      on.engine.lines.push({ answer: { content: "One." } }, { answer: { content: "Two." } });
      on.engine.lines.push({ answer: { content: "Three." } });
      const first = await say(false, ask);
      const second = await say(true, [...ask, ...sent(first.output)]);
      const go: Item = { role: "user", content: "Go on." };
      await say(false, [...ask, ...sent(first.output), ...sent(second.output), go]);
      const [, two, three] = on.recorded();
      expect(three!.messages.map(({ content }) => content)).toEqual([
        ...["Play.", "One.", "Two.", "Go on."],
      ]);
      expect(three).toMatchObject({ parentId: two!.id, splitReason: null });
    },
  );

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

  describe("naming the answer before", () => {
    const after = (previous: string, input = "And?", rest: Params = {}) =>
      say(false, input, { previous_response_id: previous, ...rest });
    const expectContinues = (nth: number, parent: number) => {
      const [one, before] = [on.recorded()[nth]!, on.recorded()[parent]!];
      expect(one).toMatchObject({ parentId: before.id, splitReason: null });
      const ids = [...on.engine.requests[parent]!.prompt, ...before.sampled];
      expect(on.engine.requests[nth]!.prompt.slice(0, ids.length)).toEqual(ids);
    };

    it("goes on from the answer that is named, of two that say the same", async () => {
      for (const content of ["a", "a", "b", "c"]) on.engine.lines.push({ answer: { content } });
      const first = await say(false, ask);
      await say(true, ask);
      expect(first).toMatchObject({ store: true, previous_response_id: null });
      const next = await after(first.id);
      expect(next.previous_response_id).toBe(first.id);
      expectContinues(2, 0);
      await after(next.id);
      expectContinues(3, 2);
      expect(on.recorded()[3]!.messages.map(({ content }) => content)).toEqual([
        ...["Play.", "a", "And?", "b", "And?"],
      ]);
    });

    it("inherits what was said, and no instructions", async () => {
      for (const content of ["a", "b", "c"]) on.engine.lines.push({ answer: { content } });
      const first = await say(false, ask, { instructions: "Be brief." });
      const second = await after(first.id, "And?", { instructions: "Be brief." });
      expectContinues(1, 0);
      await after(second.id);
      const { messages, parentId, splitReason } = on.recorded()[2]!;
      expect(messages.map(({ role }) => role)).toEqual([
        ...["user", "assistant", "user", "assistant", "user"],
      ]);
      // Without them the prompt is another one.
      expect({ parentId, splitReason }).toEqual({ parentId: null, splitReason: "edited_history" });
    });

    it("does not keep what was asked not to be kept, though it may be asked after an answer", async () => {
      for (const content of ["a", "b"]) on.engine.lines.push({ answer: { content } });
      const first = await say(false, ask);
      const second = await after(first.id, "And?", { store: false });
      expect(second).toMatchObject({ store: false });
      expectContinues(1, 0);
      await expect(after(second.id)).rejects.toMatchObject({
        status: 400,
        code: "previous_response_not_found",
        message: expect.stringContaining('"store": false'),
      });
      const item = { type: "item_reference" as const, id: second.output[0]!.id! };
      const named = client.responses.create({ model: "m", input: [...ask, item, ...ask] });
      await expect(named).rejects.toMatchObject({
        ...{ status: 400, code: "previous_response_not_found" },
        message: expect.stringContaining('"store": false'),
      });
    });

    it("takes back an answer that its client asks for again, and no other", async () => {
      for (const content of ["a", "b", "c"]) on.engine.lines.push({ answer: { content } });
      const { id } = await say(false, ask);
      const body = { model: "m", input: "And?", previous_response_id: id };
      await client.responses.create(body);
      await client.responses.create(body, { headers: { "x-stainless-retry-count": "1" } });
      expect(on.recorded().map(({ delivered }) => delivered)).toEqual([true, false, true]);
    });

    it("knows the answers of its rollout alone", async () => {
      on.engine.lines.push({ answer: { content: "a" } }, { answer: { content: "b" } });
      const { id, output } = await say(false, ask);
      const unkept = await on.gateway.client().responses.create({ model: "m", input: "?" });
      expect(unkept).toMatchObject({ store: false });
      const item = { type: "item_reference" as const, id: output[0]!.id! };
      for (const [rollout, named, said] of [
        ["ro_1", "resp_1", "in this rollout"],
        ["ro_1", unkept.id, "in this rollout"],
        ["ro_2", id, "in this rollout"],
        [undefined, id, "base URL of a rollout"],
      ] as const) {
        const create = on.gateway
          .client(rollout)
          .responses.create({ model: "m", input: "?", previous_response_id: named });
        await expect(create).rejects.toMatchObject({
          ...{ status: 400, code: "previous_response_not_found", param: "previous_response_id" },
          message: expect.stringContaining(said),
        });
      }
      for (const [rollout, named] of [
        ["ro_2", item.id],
        ["ro_1", "msg_1"],
        ["ro_1", item.id.replace("msg", "fc")],
      ] as const) {
        const input = [...ask, { ...item, id: named }, ...ask];
        await expect(
          on.gateway.client(rollout).responses.create({ model: "m", input }),
        ).rejects.toMatchObject({ status: 400, param: "input[1].id" });
      }
      expect(on.engine.requests).toHaveLength(2);
    });
  });
});
