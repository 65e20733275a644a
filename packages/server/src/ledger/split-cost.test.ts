import type { ChatMessage } from "@hone/core";
import { expect, it } from "vitest";
import { completionOf } from "../testing/fixtures.ts";
import { splitsOf } from "./split-cost.ts";

it("is counted in time that grows with the tokens, not with the pairs of turns", () => {
  const [turns, tokens] = [400, 16_000];
  // Each turn reads nearly all of the turn before anew, as where a renderer cannot bridge.
  const completions = Array.from({ length: turns }, (_, turn) =>
    completionOf("ro_a", {
      ...{ seq: turn, splitReason: turn > 0 ? "cannot_bridge" : null },
      promptSuffix: Int32Array.from({ length: tokens }, (_unused, at) =>
        at < tokens - 10 * (turns - turn) ? at : turn,
      ),
      messages: Array.from({ length: 2 * turn + 1 }, (_unused, at): ChatMessage => {
        return { role: at % 2 === 0 ? "user" : "assistant", content: "a few words ".repeat(3) };
      }),
    }),
  );
  const began = performance.now();
  const splits = splitsOf(completions);
  // Compared with one another they took half a minute.
  expect(performance.now() - began).toBeLessThan(10_000);
  expect(splits?.reasons).toEqual({ cannot_bridge: turns - 1 });
  expect(splits?.tokensAgain).toBeGreaterThan(0);
});
