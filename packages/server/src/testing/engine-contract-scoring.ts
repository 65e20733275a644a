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
  });
}
