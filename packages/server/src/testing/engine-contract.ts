import { HoneError, type ErrorCode } from "@hone/core";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EngineChunk, TokenChance } from "../ports/engine.ts";
import { describeFormats } from "./engine-contract-formats.ts";
import { describeScoring } from "./engine-contract-scoring.ts";
import { measureParity, spoken, type ParityCase, type RunningEngine } from "./running-engine.ts";
import {
  largestDifference,
  promptOf,
  sample,
  sampleOne,
  type Ask,
  type Sampled,
} from "./sampling.ts";
import { adapterAt } from "./adapters.ts";

/** What every engine behind the server must do (docs/worker-contract.md). Tests run in order. */
export function describeEngine(name: string, start: () => Promise<RunningEngine>): void {
  describe(`engine contract: ${name}`, { shuffle: false }, () => {
    let running: RunningEngine;
    /** The bare base's own words, taken while no adapter is loaded. */
    let baseline: Sampled[];
    /** A seeded request that goes on for a while, whose answer an idle engine repeats. */
    let talk: Ask;
    let talked: Sampled;

    beforeAll(async () => {
      running = await start();
      baseline = [];
      for (let i = 0; i < 6; i++) baseline.push(await one({ prompt: promptOf(i) }));
      for (let seed = 1; !talked; seed++) {
        talk = { prompt: promptOf(seed), maxTokens: 32, temperature: 1.2, seed };
        const said = await one(talk);
        if (said.ids.length === 32 && said.text.length >= 24) talked = said;
      }
    });
    afterAll(() => running?.stop(), 60_000);

    const one = (ask: Ask) => sampleOne(running.engine, ask);
    const adapter = (folder: string) => join(running.adapters, folder);

    it("tells the base's name and context length", async () => {
      expect(await running.engine.info()).toEqual({
        base: "base",
        maxModelLen: running.maxModelLen,
      });
      expect(await running.engine.served()).toEqual(new Map());
    });

    it("sends one logprob per sampled id and says why it ended", async () => {
      const choice = await one({ prompt: promptOf(1), maxTokens: 9, temperature: 1, seed: 1 });
      expect(choice.ids.length).toBeGreaterThan(0);
      expect(choice.ids.length).toBeLessThanOrEqual(9);
      expect(choice.logprobs).toHaveLength(choice.ids.length);
      expect(Math.max(...choice.logprobs)).toBeLessThanOrEqual(0);
      expect(choice.finish).toBe(choice.ids.length === 9 ? "length" : "stop");
    });

    it("takes the likeliest token at temperature 0, every time", async () => {
      const again = await one({ prompt: promptOf(0) });
      expect(again.ids).toEqual(baseline[0]!.ids);
      expect(largestDifference(again.logprobs, baseline[0]!.logprobs)).toBeLessThan(1e-4);
    });

    it("streams what it sends whole", async () => {
      const streamed = await one({ ...talk, stream: true });
      expect(streamed.chunks).toBeGreaterThan(1);
      expect(streamed).toMatchObject({
        ids: talked.ids,
        text: talked.text,
        finish: talked.finish,
      });
      expect(largestDifference(streamed.logprobs, talked.logprobs)).toBeLessThan(1e-4);
    });

    it.each([false, true])("samples n choices, streaming %s", async (stream) => {
      const ask = { prompt: promptOf(3), n: 4, temperature: 1.5, maxTokens: 16, seed: 5, stream };
      const choices = await sample(running.engine, ask);
      expect(new Set(choices.map((choice) => choice.ids.join())).size).toBeGreaterThan(1);
      for (const choice of choices) expect(choice.finish).not.toBeNull();
    });

    it.each([false, true])(
      "samples n equal choices at temperature 0, streaming %s",
      async (stream) => {
        const choices = await sample(running.engine, { prompt: promptOf(0), n: 3, stream });
        expect(choices.map((choice) => choice.ids)).toEqual(Array(3).fill(baseline[0]!.ids));
        expect(choices.every((choice) => choice.finish === baseline[0]!.finish)).toBe(true);
      },
    );

    it("repeats a seed on an idle engine, and not another one", async () => {
      expect((await one(talk)).ids).toEqual(talked.ids);
      expect((await one({ ...talk, seed: 1_000_003 })).ids).not.toEqual(talked.ids);
    });

    it.each([false, true])(
      "ends the text before a stop string and keeps its ids, streaming %s",
      async (stream) => {
        const at = Math.floor(talked.text.length / 2);
        const stop = talked.text.slice(at, at + 3);
        const visible = talked.text.slice(0, talked.text.indexOf(stop));

        const cut = await one({ ...talk, stop: [stop], stream });
        expect(cut.text).toBe(visible);
        expect(cut.finish).toBe("stop");
        expect(cut.ids).toEqual(talked.ids.slice(0, cut.ids.length));
        expect(cut.logprobs).toHaveLength(cut.ids.length);
        const sameIds = await one({ ...talk, maxTokens: cut.ids.length });
        expect(sameIds.text).toContain(stop);
      },
    );

    it.each([false, true])("ends with a stop id, which it sends, streaming %s", async (stream) => {
      const id = talked.ids[10]!;
      const first = talked.ids.indexOf(id);
      const cut = await one({ ...talk, stopTokenIds: [id], stream });
      expect(cut.ids).toEqual(talked.ids.slice(0, first + 1));
      expect(cut.finish).toBe("stop");
      expect(talked.text.startsWith(cut.text)).toBe(true);
    });

    it("refuses a prompt that leaves no room, and clamps what is asked beyond it", async () => {
      const tooLong = promptOf(1, running.maxModelLen);
      await expectCode(one({ prompt: tooLong, maxTokens: 1 }), "context_length_exceeded");
      const room = 5;
      const choice = await one({
        prompt: promptOf(1, running.maxModelLen - room),
        maxTokens: room + 3,
      });
      expect(choice.ids.length).toBeLessThanOrEqual(room);
    });

    it("says that it does not know a model", async () => {
      await expectCode(one({ model: "nobody@3", prompt: promptOf(1) }), "policy_not_found");
      await expectCode(
        one({ model: "nobody@3", prompt: promptOf(1), stream: true }),
        "policy_not_found",
      );
    });

    it("loads adapters under names that it then serves, each once", async () => {
      const { engine } = running;
      await engine.load(adapterAt("m@0", adapter("zero")));
      await engine.load(adapterAt("m@1", adapter(`say-${spoken.a}`)));
      await engine.load(adapterAt("m@2", adapter(`say-${spoken.b}`)));
      expect(await engine.served()).toEqual(
        new Map([
          ["m@0", adapter("zero")],
          ["m@1", adapter(`say-${spoken.a}`)],
          ["m@2", adapter(`say-${spoken.b}`)],
        ]),
      );
      // The name under which an import is tried.
      await engine.load(adapterAt("m@3.check-op_1", adapter("mild")));
      await engine.unload("m@3.check-op_1");
      expect((await engine.served()).has("m@3.check-op_1")).toBe(false);
      expect((await engine.info()).base).toBe("base");
      await expectCode(engine.load(adapterAt("m@1", adapter(`say-${spoken.b}`))), "bad_adapter");
      await expectCode(engine.load(adapterAt("m@9", adapter("missing"))), "not_found");
      await expectCode(engine.unload("nobody@1"), "policy_not_found");
      expect((await one({ model: "m@1", prompt: promptOf(1) })).ids).toEqual(
        Array(12).fill(spoken.a),
      );
    });

    // vLLM checks ranks only: a wrong shape has to be refused before it gets there.
    const misfits = name === "vllm" ? ["bad-rank"] : ["bad-rank", "bad-shape"];
    it.each(misfits)("refuses an adapter that does not fit: %s", async (bad) => {
      const failure = await failureOf(running.engine.load(adapterAt("m@8", adapter(bad))));
      expect(["bad_adapter", "engine_error"]).toContain(failure.code);
      expect((await running.engine.served()).has("m@8")).toBe(false);
    });

    it("mixes base and adapters in one forward with all slots full", async () => {
      await running.engine.load(adapterAt("m@3", adapter("mild")));
      const models = ["m@0", "m@1", "m@2", "m@3", ...(running.bareBaseAlwaysRight ? ["base"] : [])];
      const asks = models.flatMap((model) => [0, 1, 2, 3, 4, 5].map((i) => ({ model, i })));
      const alone = new Map<string, Sampled>();
      for (const i of [0, 1, 2, 3, 4, 5]) {
        alone.set(`m@3/${i}`, await one({ model: "m@3", prompt: promptOf(i) }));
      }
      const mixed = await Promise.all(
        asks.map(async ({ model, i }, at) => ({
          model,
          i,
          choice: await one({ model, prompt: promptOf(i), stream: at % 2 === 0 }),
        })),
      );
      for (const { model, i, choice } of mixed) {
        if (model === "m@1") expect(choice.ids).toEqual(Array(12).fill(spoken.a));
        else if (model === "m@2") expect(choice.ids).toEqual(Array(12).fill(spoken.b));
        else {
          const expected = model === "m@3" ? alone.get(`m@3/${i}`)! : baseline[i]!;
          expect(choice.ids, `${model} on prompt ${i}`).toEqual(expected.ids);
          expect(largestDifference(choice.logprobs, expected.logprobs)).toBeLessThan(1e-4);
        }
      }
    });

    it("reports logprobs that a PEFT forward of the same weights repeats", async () => {
      const plain = running.bareBaseAlwaysRight ? "base" : "m@0";
      const asks = [plain, "m@3", "m@1"].flatMap((model) =>
        [0, 0.7, 1, 1.3].map((temperature, i) => ({ model, temperature, prompt: promptOf(i) })),
      );
      const cases = await Promise.all(
        asks.map(async (ask): Promise<ParityCase> => {
          const { ids, logprobs } = await one({ ...ask, maxTokens: 48, stream: true });
          const folder = { "m@1": `say-${spoken.a}`, "m@3": "mild" }[ask.model];
          return { ...ask, adapter: folder ? adapter(folder) : null, ids, logprobs };
        }),
      );
      const { mean, max, tokens } = await measureParity(cases);
      console.log(`${name}: parity over ${tokens} tokens: mean ${mean}, max ${max}`);
      expect(tokens).toBeGreaterThan(300);
      expect(mean).toBeLessThan(1e-5);
      expect(max).toBeLessThan(1e-3);
    });

    it("keeps the logprobs of the distribution that top_p leaves", async () => {
      const narrow = await one({ ...talk, topP: 1e-6 });
      // Only the likeliest token is left, and it is certain.
      expect(narrow.ids).toEqual((await one({ ...talk, temperature: 0 })).ids);
      expect(Math.min(...narrow.logprobs)).toBeGreaterThan(-1e-4);
      // A narrower choice is never less certain: the first token's logprob can only grow.
      expect(Math.min(...talked.logprobs)).toBeLessThan(-0.1);
    });

    it.each([false, true])(
      "tells the likeliest tokens of the distribution sampled from, streaming %s",
      async (stream) => {
        const k = 5;
        const told = await one({ ...talk, topLogprobs: k, stream });
        expect(told.ids).toEqual(talked.ids);
        expect(talked.top).toEqual([]);
        expect(told.top).toHaveLength(told.ids.length);
        let sampledIsListed = 0;
        for (const [i, list] of told.top.entries()) {
          expect(list).toHaveLength(k);
          expect(new Set(list.map(({ id }) => id)).size).toBe(k);
          const values = list.map(({ logprob }) => logprob);
          expect(values).toEqual(values.toSorted((a, b) => b - a));
          expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThan(1.0001);
          const same = list.find(({ id }) => id === told.ids[i]);
          if (same) {
            sampledIsListed++;
            expect(Math.abs(same.logprob - told.logprobs[i]!)).toBeLessThan(1e-4);
          } else expect(told.logprobs[i]!).toBeLessThanOrEqual(values.at(-1)! + 1e-4);
        }
        expect(sampledIsListed).toBeGreaterThan(0);
      },
    );

    it("tells them after temperature and top_p", async () => {
      const first = async (ask: Partial<Ask>) =>
        (await one({ prompt: promptOf(0), maxTokens: 1, seed: 1, topLogprobs: 5, ...ask })).top[0]!;
      const gap = (list: readonly TokenChance[]) => list[0]!.logprob - list[1]!.logprob;
      const plain = await first({ temperature: 1 });
      const hot = await first({ temperature: 2 });
      expect(hot.map(({ id }) => id)).toEqual(plain.map(({ id }) => id));
      expect(gap(plain)).toBeGreaterThan(0.01);
      expect(gap(hot)).toBeCloseTo(gap(plain) / 2, 3);
      // The likeliest token is the one that is taken at temperature 0, where logprobs are of temperature 1.
      const greedy = await first({ temperature: 0 });
      expect(greedy[0]!.id).toBe(baseline[0]!.ids[0]);
      expect(gap(greedy)).toBeCloseTo(gap(plain), 3);
      const narrow = await first({ temperature: 1, topP: 1e-6 });
      expect(narrow.map(({ id }) => id)).toEqual([plain[0]!.id]);
      expect(Math.abs(narrow[0]!.logprob)).toBeLessThan(1e-4);
    });

    describeFormats(() => running);
    describeScoring(() => running);

    it("lets a stream keep its policy while others are published", async () => {
      const { engine } = running;
      await engine.unload("m@3");
      const streams = Array.from({ length: 4 }, (_, i) =>
        chunksOf({ model: i % 2 ? "m@1" : "m@2", prompt: promptOf(i), maxTokens: 120 }),
      );
      const firsts = await Promise.all(streams.map((stream) => stream.next()));
      await engine.load(adapterAt("m@4", adapter("mild")));
      expect((await one({ model: "m@4", prompt: promptOf(1) })).ids.length).toBeGreaterThan(0);
      for (const [i, stream] of streams.entries()) {
        const ids = [...firsts[i]!.value!.tokenIds];
        for await (const chunk of stream) ids.push(...chunk.tokenIds);
        expect(ids).toEqual(Array(120).fill(i % 2 ? spoken.a : spoken.b));
      }
    });

    it("finishes a request whose adapter is unloaded meanwhile", async () => {
      const stream = chunksOf({ model: "m@2", prompt: promptOf(2), maxTokens: 150 });
      const first = await stream.next();
      await running.engine.unload("m@2");
      await expectCode(one({ model: "m@2", prompt: promptOf(2) }), "policy_not_found");
      expect((await running.engine.served()).has("m@2")).toBe(false);
      const ids = [...first.value!.tokenIds];
      for await (const chunk of stream) ids.push(...chunk.tokenIds);
      expect(ids).toEqual(Array(150).fill(spoken.b));
    });

    it("ends a generation whose reader leaves", async () => {
      const ask = { model: "m@1", prompt: promptOf(1), maxTokens: 400, n: 6 };
      const all = ask.n * ask.maxTokens;
      // Where this process was so late that all was said before, that shows nothing, and is tried again.
      let made = all;
      for (let attempt = 0; made === all && attempt < 20; attempt++) {
        const stop = new AbortController();
        const before = await counted("generation_tokens_total");
        const stream = chunksOf({ ...ask, signal: stop.signal });
        await stream.next();
        stop.abort();
        const left = await failureOrEnd(stream);
        await expect
          .poll(async () => [
            await counted("num_requests_running"),
            await counted("num_requests_waiting"),
          ])
          .toEqual([0, 0]);
        made = (await counted("generation_tokens_total")) - before;
        if (made < all) expect(String(left)).toMatch(/abort/i);
      }
      expect(made).toBeLessThan(all);
    });

    it("is never a clean end when it dies in mid-stream", async () => {
      const ask = { model: "m@1", prompt: promptOf(1), maxTokens: 450, n: 8 };
      for (let attempt = 0; ; attempt++) {
        const stream = chunksOf(ask);
        const first = (await stream.next()).value as EngineChunk;
        const [end] = await Promise.all([failureOrEnd(stream), running.child.kill()]);
        if (HoneError.isInstance(end)) {
          expect(end.code).toBe("engine_error");
          break;
        }
        // As above: a clean end is one of a whole answer.
        expect(Number(end) + first.tokenIds.length).toBe(ask.n * ask.maxTokens);
        expect(attempt).toBeLessThan(5);
        await running.stop();
        running = await start();
        await running.engine.load(adapterAt("m@1", adapter(`say-${spoken.a}`)));
      }
      await expectCode(one({ prompt: promptOf(1) }), "engine_unavailable");
    });

    /** Reads to the end: what it failed with, or how many tokens came. */
    async function failureOrEnd(stream: AsyncGenerator<EngineChunk>): Promise<unknown> {
      let tokens = 0;
      try {
        for await (const chunk of stream) tokens += chunk.tokenIds.length;
        return tokens;
      } catch (error) {
        return error;
      }
    }

    function chunksOf(ask: Ask): AsyncGenerator<EngineChunk> {
      return running.engine.generate({
        model: "base",
        n: 1,
        maxTokens: 12,
        temperature: 0,
        topP: 1,
        seed: null,
        stop: [],
        stopTokenIds: [],
        stream: true,
        signal: new AbortController().signal,
        ...ask,
      }) as AsyncGenerator<EngineChunk>;
    }

    async function counted(metric: string): Promise<number> {
      const response = await fetch(`${running.child.baseURL}/metrics`, {
        headers: { authorization: `Bearer ${running.child.key}` },
      });
      const line = new RegExp(`^vllm:${metric}(?:\\{[^}]*\\})? (\\S+)`, "m");
      return Number(line.exec(await response.text())?.[1]);
    }
  });
}

async function failureOf(work: Promise<unknown>): Promise<HoneError> {
  try {
    await work;
  } catch (error) {
    if (HoneError.isInstance(error)) return error;
    throw error;
  }
  throw new Error("it succeeded, and should have failed");
}

async function expectCode(work: Promise<unknown>, code: ErrorCode): Promise<void> {
  expect((await failureOf(work)).code).toBe(code);
}
