import OpenAI from "openai";
import { beforeAll, describe, expect, it } from "vitest";
import { useEmbeddedGateway } from "../testing/embedded-gateway.ts";
import { workerPython } from "../testing/running-engine.ts";
import { conversations } from "../ledger/trajectory.ts";
import { masksOf } from "../step-data/filter.ts";
import { fullPrompt } from "../conversation/prompt.ts";

/** vLLM's extension, which openai-node does not know. */
interface Ids {
  prompt_token_ids: number[];
  token_ids: number[];
}
const withIds = { return_token_ids: true };
type Params = OpenAI.CompletionCreateParamsNonStreaming;

const prompt = "a1=. a2=4 a3=2\nlegal: up down left\nThe best move is";

// Renderer, worker, model, HTTP and client are the real ones.
describe.skipIf(!workerPython())("plain prompts", () => {
  const on = useEmbeddedGateway();
  let client: OpenAI;
  let made = 0;

  beforeAll(() => {
    client = on.gateway.client();
  });

  const base: Params = { model: "m", prompt, temperature: 1.2, seed: 5, max_tokens: 24 };
  const rollout = () => {
    const id = `ro_t${++made}`;
    return { client: on.gateway.client(id), recorded: () => on.gateway.ledger.of(id) };
  };
  const refusal = (rest: Record<string, unknown>) =>
    client.completions
      .create({ ...base, ...rest })
      .then(() => null)
      .catch((error: unknown) => error);

  it("answers as OpenAI does", async () => {
    const { data, response } = await client.completions.create(base).withResponse();
    expect(response.headers.get("x-hone-policy")).toBe("m@1");
    expect(data).toEqual({
      id: expect.stringMatching(/^cmpl_/),
      object: "text_completion",
      created: expect.any(Number),
      model: "m@1",
      choices: [
        { index: 0, text: expect.any(String), logprobs: null, finish_reason: expect.any(String) },
      ],
      usage: expect.any(Object),
    });
    const ids = await on.renderer.encode(prompt);
    const { prompt_tokens: asked, completion_tokens: sampled, total_tokens: total } = data.usage!;
    expect(asked).toBe(ids.length);
    expect(total).toBe(asked + sampled);
    const short = await client.completions.create({
      model: "m",
      prompt,
      temperature: 1.2,
      seed: 5,
    });
    expect(short.usage!.completion_tokens).toBeLessThanOrEqual(16);
  });

  it("takes text, its token ids, and a list of one of either alike", async () => {
    const ids = await on.renderer.encode(prompt);
    const texts = [];
    for (const given of [prompt, ids, [prompt], [ids]]) {
      const { choices } = await client.completions.create({ ...base, prompt: given });
      texts.push(choices[0]!.text);
    }
    expect(new Set(texts).size).toBe(1);
    expect(texts[0]!.length).toBeGreaterThan(3);
  });

  it("streams the same text as it sends whole, with usage last when asked", async () => {
    const whole = await client.completions.create({ ...base, ...withIds, logprobs: 2 });
    const stream = await client.completions.create({
      ...base,
      ...withIds,
      logprobs: 2,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: OpenAI.Completion[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const said = chunks.flatMap((chunk) => chunk.choices);
    expect(chunks.length).toBeGreaterThan(3);
    expect(said.map((choice) => choice.text).join("")).toBe(whole.choices[0]!.text);
    expect(said.at(-1)!.finish_reason).toBe(whole.choices[0]!.finish_reason);
    expect(said.slice(0, -1).every((choice) => choice.finish_reason === null)).toBe(true);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
    const ids = said.map((choice) => choice as unknown as Partial<Ids>);
    const wholeIds = whole.choices[0]! as unknown as Ids;
    expect(ids.flatMap((choice) => choice.token_ids ?? [])).toEqual(wholeIds.token_ids);
    expect(ids[0]!.prompt_token_ids).toEqual(wholeIds.prompt_token_ids);
    expect(ids.slice(1).every((choice) => choice.prompt_token_ids === undefined)).toBe(true);
    const { logprobs } = whole.choices[0]!;
    for (const key of ["tokens", "token_logprobs", "text_offset", "top_logprobs"] as const) {
      expect(said.flatMap((choice): unknown[] => choice.logprobs?.[key] ?? [])).toEqual(
        logprobs![key],
      );
    }
  });

  it("tells logprobs, the likeliest tokens and where each token begins", async () => {
    const { client: player, recorded } = rollout();
    const { choices } = await player.completions.create({ ...base, logprobs: 3 });
    const {
      tokens,
      token_logprobs: values,
      top_logprobs: top,
      text_offset: at,
    } = choices[0]!.logprobs!;
    const [completion] = recorded();
    expect(Float32Array.from(values!)).toEqual(completion!.logprobs);
    for (const [i, name] of tokens!.entries()) {
      const list = Object.entries(top![i]!);
      expect(list.length).toBeLessThanOrEqual(4);
      expect(list.length).toBeGreaterThanOrEqual(3);
      expect(top![i]![name]).toBe(values![i]);
      if (at![i]! < choices[0]!.text.length && !name.startsWith("bytes:")) {
        expect(choices[0]!.text.slice(at![i])).toMatch(
          new RegExp(`^${name.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}`),
        );
      }
    }
    const { choices: bare } = await client.completions.create({ ...base, logprobs: 0 });
    expect(bare[0]!.logprobs!.top_logprobs!.map(Object.keys)).toEqual(
      bare[0]!.logprobs!.tokens!.map((name) => [name]),
    );
  });

  it("tells the likeliest tokens of a chat, streaming and not", async () => {
    const request = {
      model: "m",
      messages: [{ role: "user" as const, content: prompt }],
      seed: 5,
      max_tokens: 8,
      logprobs: true,
      top_logprobs: 4,
    };
    const whole = await client.chat.completions.create(request);
    const content = whole.choices[0]!.logprobs!.content!;
    expect(content.length).toBeGreaterThan(0);
    for (const { token, logprob, bytes, top_logprobs: top } of content) {
      expect(top).toHaveLength(4);
      expect(top.map((entry) => entry.logprob)).toEqual(
        top.map((entry) => entry.logprob).toSorted((a, b) => b - a),
      );
      const same = top.find((entry) => entry.token === token);
      if (same) expect(same).toMatchObject({ logprob: expect.closeTo(logprob, 4), bytes });
      else expect(logprob).toBeLessThanOrEqual(top.at(-1)!.logprob);
    }
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    // To rounding: the second request finds its prompt computed.
    expect(streamed.choices[0]!.logprobs!.content).toEqual(
      content.map((entry) => ({
        ...entry,
        logprob: expect.closeTo(entry.logprob, 4),
        top_logprobs: entry.top_logprobs.map((top) => ({
          ...top,
          logprob: expect.closeTo(top.logprob, 4),
        })),
      })),
    );
  });

  it("honours n, stop and max_tokens", async () => {
    const { client: player, recorded } = rollout();
    const many = await player.completions.create({ ...base, n: 3, max_tokens: 5 });
    expect(many.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
    expect(recorded().map((completion) => completion.choices)).toEqual([3, 3, 3]);
    const full = (await player.completions.create(base)).choices[0]!.text;
    const stop = full.slice(2, 4);
    const cut = await player.completions.create({ ...base, stop });
    expect(cut.choices[0]).toMatchObject({
      text: full.slice(0, full.indexOf(stop)),
      finish_reason: "stop",
    });
  });

  it("records what trains, and continues by ids alone", async () => {
    const { client: player, recorded } = rollout();
    const first = await player.completions.create({ ...base, ...withIds });
    const [one] = recorded();
    const { prompt_token_ids: asked, token_ids: said } = first.choices[0]! as unknown as Ids;
    expect(asked).toEqual(fullPrompt(one!, recorded()));
    expect(said).toEqual([...one!.sampled]);
    const before = [...asked, ...said];
    expect(one).toMatchObject({
      kind: "text",
      parentId: null,
      delivered: true,
      messages: [{ role: "user", content: prompt }],
      answer: { role: "assistant", content: first.choices[0]!.text },
    });
    const more = await on.renderer.encode("\nlegal: up\nThe best move is");
    await player.completions.create({ ...base, prompt: [...before, ...more] });
    await player.completions.create({ ...base, prompt: before });
    await player.completions.create({ ...base, prompt: [...before.slice(0, -1), ...more] });
    await player.completions.create({ ...base, prompt: "Something else." });
    const [, two, three, four, five] = recorded();
    expect(two).toMatchObject({ parentId: one!.id, splitReason: null });
    expect([...two!.promptSuffix]).toEqual(more);
    expect(two!.messages).toEqual([
      ...one!.messages,
      one!.answer,
      { role: "user", content: "\nlegal: up\nThe best move is" },
    ]);
    expect(three).toMatchObject({ parentId: one!.id, messages: [...one!.messages, one!.answer] });
    expect(three!.promptSuffix).toHaveLength(0);
    expect(four).toMatchObject({ parentId: null, splitReason: "edited_history" });
    expect(five).toMatchObject({ parentId: null, splitReason: "new_conversation" });
    const options = { allowConstrained: false, maskTruncatedCompletions: false };
    expect([...masksOf(recorded(), options).values()]).toEqual(Array(5).fill(null));
    const told = conversations(recorded()).map(({ messages }) => messages.length);
    expect(told).toEqual([4, 3, 2, 2]);
  });

  it("keeps chats and plain prompts of one rollout apart", async () => {
    const { client: player, recorded } = rollout();
    const text = (await player.completions.create(base)).choices[0]!.text;
    await player.chat.completions.create({
      model: "m",
      messages: [
        { role: "user", content: prompt },
        { role: "assistant", content: text },
        { role: "user", content: "Why?" },
      ],
      max_tokens: 4,
    });
    const [plain, chat] = recorded();
    expect(plain!.kind).toBe("text");
    expect(chat).toMatchObject({ kind: "chat", parentId: null, splitReason: "new_conversation" });
    expect(conversations(recorded())).toHaveLength(2);
  });

  it("does not train what an SDK asks for again", async () => {
    const { client: player, recorded } = rollout();
    await player.completions.create(base);
    await player.completions.create(base);
    await player.completions.create(base, { headers: { "x-stainless-retry-count": "1" } });
    expect(recorded().map(({ delivered }) => delivered)).toEqual([true, false, true]);
  });

  it.each<[string, Record<string, unknown>, string, string]>([
    ["two texts", { prompt: ["a", "b"] }, "unsupported_parameter", "prompt"],
    ["two lists of ids", { prompt: [[1, 2], [3]] }, "unsupported_parameter", "prompt"],
    ["no tokens", { prompt: "" }, "invalid_request", "prompt"],
    ["an empty list", { prompt: [] }, "invalid_request", "prompt"],
    ["ids of another base", { prompt: [1, 99_999_999] }, "invalid_request", "prompt"],
    ["echo", { echo: true }, "unsupported_parameter", "echo"],
    ["best_of", { best_of: 3 }, "unsupported_parameter", "best_of"],
    ["best_of below n", { best_of: 1, n: 2 }, "unsupported_parameter", "best_of"],
    ["a suffix", { suffix: "end" }, "unsupported_parameter", "suffix"],
    ["six logprobs", { logprobs: 6 }, "invalid_request", "logprobs"],
    ["an unknown key", { min_p: 0.1 }, "unsupported_parameter", "min_p"],
    [
      "stream options without a stream",
      { stream_options: { include_usage: true } },
      "unsupported_parameter",
      "stream_options",
    ],
    ["too long a prompt", { prompt: "x ".repeat(9000) }, "context_length_exceeded", "prompt"],
    ["an unknown model", { model: "nobody" }, "model_not_found", "model"],
  ])("refuses %s", async (_, rest, code, param) => {
    const error = await refusal(rest);
    expect(error).toBeInstanceOf(OpenAI.APIError);
    expect(error).toMatchObject({ code, param });
  });

  it("refuses more top_logprobs than engines tell", async () => {
    const chat = {
      model: "m",
      messages: [{ role: "user" as const, content: "x" }],
      logprobs: true,
    };
    await expect(
      client.chat.completions.create({ ...chat, top_logprobs: 21 }),
    ).rejects.toMatchObject({ code: "invalid_request", param: "top_logprobs" });
  });
});
