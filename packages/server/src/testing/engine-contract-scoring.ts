import { describe, expect, it } from "vitest";
import type { RunningEngine } from "./running-engine.ts";
import { largestDifference, promptOf, sampleOne } from "./sampling.ts";

/** How likely given tokens are: what a teacher is asked. */
export function describeScoring(engine: () => RunningEngine): void {
  describe("scoring", () => {
    it("tells of a prompt's tokens what it told when it sampled them", async () => {
      const running = engine();
      const plain = running.bareBaseAlwaysRight ? "base" : "m@0";
      for (const model of [plain, "m@3"]) {
        const prompt = promptOf(2);
        const ask = { model, prompt, temperature: 1, seed: 3, maxTokens: 16 };
        const { ids, logprobs } = await sampleOne(running.engine, ask);
        const scored: number[][] = [];
        for await (const chunk of running.engine.generate({
          ...{ model, n: 1, maxTokens: 1, temperature: 1, topP: 1, seed: null },
          ...{ stop: [], stopTokenIds: [], stream: false, promptLogprobs: true },
          prompt: [...prompt, ...ids],
          signal: new AbortController().signal,
        })) {
          scored.push([...(chunk.promptLogprobs ?? [])]);
        }
        expect(scored).toHaveLength(1);
        expect(scored[0]).toHaveLength(prompt.length + ids.length - 1);
        const told = scored[0]!.slice(prompt.length - 1);
        expect(Math.min(...told)).toBeLessThan(-0.1);
        expect(largestDifference(told, logprobs)).toBeLessThan(1e-3);
      }
    });

    it("does so beside requests that are being sampled", async () => {
      const running = engine();
      const beside = Array.from({ length: 5 }, (_, at) =>
        sampleOne(running.engine, {
          ...{ model: "m@3", prompt: promptOf(at), temperature: 1, maxTokens: 60, stream: true },
        }),
      );
      const prompt = promptOf(2);
      const score = async (): Promise<number[]> => {
        for await (const { promptLogprobs } of running.engine.generate({
          ...{ model: "m@3", n: 1, maxTokens: 1, temperature: 0, topP: 1, seed: null },
          ...{ stop: [], stopTokenIds: [], stream: false, promptLogprobs: true, prompt },
          signal: new AbortController().signal,
        })) {
          return [...(promptLogprobs ?? [])];
        }
        return [];
      };
      const busy: number[][] = [];
      for (let nth = 0; nth < 4; nth++) busy.push(await score());
      await Promise.all(beside);
      const idle = await score();
      for (const told of busy) expect(largestDifference(told, idle)).toBeLessThan(1e-3);
    });
  });
}
