import { HoneError } from "@hone/core";
import { describe, expect, it } from "vitest";
import type { JsonFormat } from "../ports/engine.ts";
import type { RunningEngine } from "./running-engine.ts";
import { largestDifference, promptOf, sample, type Ask } from "./sampling.ts";

const words = ["left", "right", "rightmost"];
const oneWord: JsonFormat = { type: "json_schema", schema: { type: "string", enum: words } };
const move: JsonFormat = {
  type: "json_schema",
  schema: {
    type: "object",
    properties: { word: { type: "string", enum: words }, sure: { type: "boolean" } },
    required: ["word", "sure"],
    additionalProperties: false,
  },
};

/** The part of the engine contract that is about answers held to a format. */
export function describeFormats(running: () => RunningEngine): void {
  describe("formats", () => {
    const ask = (given: Ask) => sample(running().engine, given);
    /** As the server asks: an answer ends with an end token, which vLLM is told by its id. */
    const held = (given: Partial<Ask>): Ask => ({
      // vLLM's text begins with what it waited for where a prompt ends in half a character.
      prompt: Array.from({ length: 24 }, (_, i) => 40 + i),
      stopTokenIds: running().endTokens,
      temperature: 1,
      maxTokens: 200,
      seed: 3,
      ...given,
    });

    it.each([false, true])("hold an answer to a schema, streaming %s", async (stream) => {
      const asks = Array.from({ length: 6 }, (_, seed) => held({ seed, stream, format: oneWord }));
      const said = (await Promise.all(asks.map(ask))).flat();
      for (const choice of said) {
        expect(words).toContain(JSON.parse(choice.text));
        expect(choice.finish).toBe("stop");
        expect(running().endTokens).toContain(choice.ids.at(-1));
        expect(choice.logprobs).toHaveLength(choice.ids.length);
      }
      expect(new Set(said.map(({ text }) => text)).size).toBeGreaterThan(1);
    });

    it("have logprobs of what the format leaves", async () => {
      const [choice] = await ask(held({ format: oneWord, topLogprobs: 20, temperature: 1.3 }));
      let certain = 0;
      for (const [i, list] of choice!.top.entries()) {
        // No more than a few tokens may come next, so the list is all of the distribution.
        const total = list.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
        expect(total).toBeCloseTo(1, 3);
        const own = list.find(({ id }) => id === choice!.ids[i]);
        expect(Math.abs(own!.logprob - choice!.logprobs[i]!)).toBeLessThan(1e-4);
        if (list.length === 1) certain++;
      }
      expect(certain).toBeGreaterThan(0);
      expect(Math.min(...choice!.logprobs)).toBeLessThan(-0.01);
    });

    it("hold objects, and any object", async () => {
      const any: JsonFormat = { type: "json_object" };
      const [moves, objects] = await Promise.all([
        ask(held({ format: move, n: 8 })),
        ask(held({ format: any, n: 8, maxTokens: 100 })),
      ]);
      const ended = moves.filter(({ finish }) => finish === "stop");
      expect(ended.length).toBeGreaterThan(0);
      for (const { text } of ended) {
        const value = JSON.parse(text) as { word: string; sure: boolean };
        expect(Object.keys(value)).toEqual(["word", "sure"]);
        expect(words).toContain(value.word);
        expect(typeof value.sure).toBe("boolean");
      }
      for (const { text, finish } of objects) {
        expect(text.trimStart().startsWith("{")).toBe(true);
        if (finish === "stop") expect(JSON.parse(text)).toBeTypeOf("object");
      }
    });

    it("end with the limit too, in the middle", async () => {
      const [choice] = await ask(held({ format: move, maxTokens: 3 }));
      expect(choice).toMatchObject({ finish: "length" });
      expect(choice!.ids).toHaveLength(3);
    });

    it("leave the rows beside them alone", async () => {
      const free = Array.from({ length: 4 }, (_, i): Ask => ({ prompt: promptOf(i) }));
      const alone = await Promise.all(free.map(ask));
      const [mixed] = await Promise.all([
        Promise.all(free.map(ask)),
        Promise.all(free.map((_, seed) => ask(held({ seed, format: move })))),
      ]);
      for (const [i, [choice]] of mixed.entries()) {
        expect(choice!.ids).toEqual(alone[i]![0]!.ids);
        expect(largestDifference(choice!.logprobs, alone[i]![0]!.logprobs)).toBeLessThan(1e-4);
      }
    });

    it.each([false, true])(
      "are refused where they cannot be held, streaming %s",
      async (stream) => {
        // What only some engines know is refused before them, by the renderer.
        const schema = { type: "object", properties: { a: { type: "strin" } } };
        const format: JsonFormat = { type: "json_schema", schema };
        const failure = await ask(held({ format, stream })).then(
          () => null,
          (error: unknown) => error,
        );
        expect(HoneError.isInstance(failure) && failure.toEnvelope().error).toMatchObject({
          code: "unsupported_parameter",
          param: "response_format.json_schema.schema",
          message: expect.stringContaining("strin"),
        });
        expect((await ask(held({ format: oneWord })))[0]!.finish).toBe("stop");
      },
    );
  });
}
