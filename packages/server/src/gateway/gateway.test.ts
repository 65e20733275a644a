import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { beforeAll, describe, expect, it } from "vitest";
import { useEmbeddedGateway } from "../testing/embedded-gateway.ts";
import { workerPython } from "../testing/running-engine.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { fullPrompt } from "../conversation/prompt.ts";
import { serveGateway } from "../testing/served-gateway.ts";
import { adapterAt } from "../testing/adapters.ts";

type Message = OpenAI.ChatCompletionMessageParam;

const board = (turn: number) =>
  `a1=. a2=${2 ** ((turn % 4) + 1)} a3=.\nb1=. b2=4 b3=2\nc1=. c2=. c3=.\nlegal: up down left`;
const rules =
  "You play 2048 on a 3x3 board. Reach 64. Row a is the top row, column 1 the left column, a dot an " +
  `empty cell. Answer with one word: up, down, left or right.\n${board(0)}`;
const question: Message = { role: "user", content: rules };

// Everything is real: renderer, worker, model, HTTP, clients. Tests run in order; the last one kills the worker.
describe.skipIf(!workerPython())("gateway over the embedded engine", { shuffle: false }, () => {
  const on = useEmbeddedGateway();
  let client: OpenAI;

  beforeAll(() => {
    client = on.gateway.client("ro_1");
  });

  const chatty = { model: "m", messages: [question], temperature: 1.5 };

  it("answers as OpenAI does, with nothing of its own in the body", async () => {
    const { data, response } = await client.chat.completions
      .create({ model: "m", messages: [question] })
      .withResponse();
    expect(response.headers.get("x-hone-policy")).toBe("m@1");
    expect(response.headers.get("x-request-id")).toBe("r1");
    expect(Object.keys(data).sort()).toEqual([
      "choices",
      "created",
      "id",
      "model",
      "object",
      "usage",
    ]);
    expect(data.model).toBe("m@1");
    const [choice] = data.choices;
    expect(Object.keys(choice!).sort()).toEqual(["finish_reason", "index", "logprobs", "message"]);
    expect(choice!.message).toEqual({
      role: "assistant",
      content: expect.any(String),
      refusal: null,
    });
    const { prompt_tokens: prompt, completion_tokens: sampled, total_tokens: total } = data.usage!;
    expect(prompt + sampled).toBe(total);
    const [completion] = on.gateway.ledger.of("ro_1");
    expect(completion!.promptSuffix).toHaveLength(prompt);
    expect(completion!.sampled).toHaveLength(sampled);
    expect(completion).toMatchObject({ policy: "m@1", temperature: 1, topP: 1, delivered: true });
  });

  it("streams the same words as it sends whole, with usage last when asked", async () => {
    const request = { ...chatty, seed: 5, max_tokens: 40 };
    const whole = await client.chat.completions.create(request);
    const stream = client.chat.completions.stream({
      ...request,
      stream_options: { include_usage: true },
    });
    const usages: unknown[] = [];
    stream.on("chunk", (chunk) => void usages.push([chunk.choices.length, chunk.usage !== null]));
    const streamed = await stream.finalChatCompletion();
    expect(streamed.choices[0]!.message.content).toBe(whole.choices[0]!.message.content);
    expect(streamed.choices[0]!.finish_reason).toBe(whole.choices[0]!.finish_reason);
    expect(streamed.usage).toEqual(whole.usage);
    expect(usages.at(-1)).toEqual([0, true]);
    expect(usages.slice(0, -1).every((seen) => String(seen) === "1,false")).toBe(true);
    const [a, b] = on.gateway.ledger.of("ro_1").slice(-2);
    expect(b!.sampled).toEqual(a!.sampled);
    expect(b!.answer).toEqual(a!.answer);
  });

  it.each([true, false])("gives the ledger's logprobs, streaming %s", async (stream) => {
    const request = { ...chatty, seed: 3, max_tokens: 12, logprobs: true };
    const { choices } = stream
      ? await client.chat.completions.stream(request).finalChatCompletion()
      : await client.chat.completions.create(request);
    const tokens = choices[0]!.logprobs!.content!;
    const completion = on.gateway.ledger.of("ro_1").at(-1)!;
    expect(Float32Array.from(tokens.map((token) => token.logprob))).toEqual(completion.logprobs);
    const { stopTokenIds } = await on.renderer.info();
    const visible = tokens.filter((_, i) => !stopTokenIds.includes(completion.sampled[i]!));
    const bytes = Buffer.from(visible.flatMap((token) => token.bytes ?? []));
    expect(bytes.toString()).toContain(choices[0]!.message.content!.slice(0, 3));
  });

  it("honours n, max_tokens, seed and stop", async () => {
    const { choices } = await client.chat.completions.create({
      ...chatty,
      n: 3,
      max_completion_tokens: 5,
    });
    expect(choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
    for (const completion of on.gateway.ledger.of("ro_1").slice(-3)) {
      expect(completion.sampled.length).toBeLessThanOrEqual(5);
      expect(completion.choices).toBe(3);
    }
    const request = { ...chatty, seed: 5, max_tokens: 40 };
    const [full, again] = [
      await client.chat.completions.create(request),
      await client.chat.completions.create(request),
    ].map((completion) => completion.choices[0]!.message.content!);
    expect(again).toBe(full);
    const stop = full!.slice(1, 3);
    const visible = full!.slice(0, full!.indexOf(stop));
    const cut = await client.chat.completions.create({ ...request, stop });
    expect(cut.choices[0]).toMatchObject({ finish_reason: "stop", message: { content: visible } });
    const streamed = await client.chat.completions
      .stream({ ...request, stop: [stop] })
      .finalContent();
    expect(streamed ?? "").toBe(visible);
  });

  it("plays 20 turns of which each begins with the one before, token for token", async () => {
    const player = on.gateway.client("ro_2");
    const messages: Message[] = [question];
    for (let turn = 1; turn <= 20; turn++) {
      const { choices } = await player.chat.completions.create({
        model: "m",
        messages,
        max_tokens: 6,
      });
      messages.push(choices[0]!.message, { role: "user", content: board(turn) });
    }
    const all = on.gateway.ledger.of("ro_2");
    for (const [i, completion] of all.entries()) {
      expect(completion.splitReason).toBeNull();
      if (i === 0) continue;
      const parent = all[i - 1]!;
      const before = [...fullPrompt(parent, all), ...parent.sampled];
      expect(completion.parentId).toBe(parent.id);
      expect(fullPrompt(completion, all).slice(0, before.length)).toEqual(before);
    }
    expect(all).toHaveLength(20);
    expect(on.gateway.counters.splits.cannot_bridge).toBe(0);
  });

  it("raises openai-node's own error classes", async () => {
    const ask = (rest: Record<string, unknown>) =>
      client.chat.completions.create({ ...chatty, ...rest }).catch((error: unknown) => error);
    expect(await ask({ model: "nobody" })).toBeInstanceOf(OpenAI.NotFoundError);
    const long = await ask({ messages: [{ role: "user", content: "x ".repeat(600) }] });
    expect(long).toBeInstanceOf(OpenAI.BadRequestError);
    expect(long).toMatchObject({ code: "context_length_exceeded" });
    expect(await ask({ logit_bias: { 4: 1 } })).toMatchObject({ code: "unsupported_parameter" });
  });

  it("lists models under both base URLs", async () => {
    for (const each of [client, on.gateway.client()]) {
      const ids = [];
      for await (const model of each.models.list()) ids.push(model.id);
      expect(ids).toEqual(["m", "m@1"]);
      expect(await each.models.retrieve("m@1")).toMatchObject({ id: "m@1", object: "model" });
      await expect(each.models.retrieve("x/y")).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    }
  });

  it("serves the AI SDK", async () => {
    const provider = createOpenAICompatible({
      name: "hone",
      baseURL: `${on.gateway.baseURL}/v1/rollouts/ro_3/v1`,
      includeUsage: true,
    });
    const prompt = rules;
    const { text, usage } = await generateText({
      model: provider("m"),
      prompt,
      maxOutputTokens: 6,
    });
    expect(text).toBe(on.gateway.ledger.of("ro_3")[0]!.answer.content);
    expect(usage.outputTokens).toBe(on.gateway.ledger.of("ro_3")[0]!.sampled.length);
    const stream = streamText({
      model: provider("m"),
      prompt,
      maxOutputTokens: 6,
      temperature: 1.2,
    });
    let streamed = "";
    for await (const piece of stream.textStream) streamed += piece;
    expect(streamed).toBe(on.gateway.ledger.of("ro_3")[1]!.answer.content);
    expect((await stream.usage).outputTokens).toBe(on.gateway.ledger.of("ro_3")[1]!.sampled.length);
  });

  /** A talker says the same token until the context is full. */
  const talk = { model: "m", messages: [question], temperature: 0, stream: true as const };

  it("stops the worker's decoding when the reader leaves", async () => {
    await on.running.engine.load(adapterAt("m@2", `${on.running.adapters}/say-100`));
    const talker = await serveGateway(on.running.engine, on.renderer, "m@2");
    const whole = await talker
      .client("ro_whole")
      .chat.completions.create({ ...talk, stream: false });
    // A slow reader may leave when all is said: that shows nothing, and is tried again.
    let left: LedgerCompletion | undefined;
    for (let attempt = 0; attempt < 20; attempt++) {
      const id = `ro_left_${attempt}`;
      const stream = await talker.client(id).chat.completions.create(talk);
      let chunks = 0;
      for await (const chunk of stream) {
        chunks += chunk.choices.length;
        if (chunks === 5) break;
      }
      await expect.poll(() => talker.ledger.of(id).length).toBe(1);
      [left] = talker.ledger.of(id);
      if (left!.sampled.length < whole.usage!.completion_tokens) break;
    }
    expect(left!.sampled.length).toBeLessThan(whole.usage!.completion_tokens);
    await expect.poll(decoding).toBe(0);
    await talker.close();
  });

  it("never ends a stream cleanly when the worker dies", async () => {
    const talker = await serveGateway(on.running.engine, on.renderer, "m@2");
    const { usage } = await talker.client().chat.completions.create({ ...talk, stream: false });
    // More at once take longer: the worker is not done when the first token of the first kills it.
    const ends = await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const id = `ro_dies_${i}`;
        try {
          const stream = await talker.client(id).chat.completions.create({ ...talk, n: 4 });
          for await (const chunk of stream) {
            if (chunk.choices.length > 0) void on.running.child.kill();
          }
          return { id, failure: null };
        } catch (error) {
          return { id, failure: error as { code: string } };
        }
      }),
    );
    const codes = ends.map(({ failure }) => failure?.code);
    expect(codes).toContain("engine_error");
    for (const { id, failure } of ends) {
      const recorded = talker.ledger.of(id);
      if (failure) {
        expect(["engine_error", "engine_unavailable"]).toContain(failure.code);
        expect(recorded.some(({ delivered }) => delivered)).toBe(false);
      } else {
        // It had all its tokens before.
        const sampled = recorded.map((completion) => completion.sampled.length);
        expect(sampled).toEqual(Array(4).fill(usage!.completion_tokens));
      }
    }
    const next = await talker
      .client("ro_5")
      .chat.completions.create({ model: "m", messages: [question] })
      .catch((error: unknown) => error);
    expect(next).toMatchObject({ status: 503, code: "engine_unavailable" });
    await talker.close();
  });

  async function decoding(): Promise<number> {
    const response = await fetch(`${on.running.child.baseURL}/metrics`, {
      headers: { authorization: `Bearer ${on.running.child.key}` },
    });
    return Number(/^vllm:num_requests_running\S* (\S+)/m.exec(await response.text())?.[1]);
  }
});
