import { describe, expect, test } from "vitest";
import { completionOf } from "../testing/fixtures.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { sampledTurn } from "./sampled-text.ts";

/** An id for each byte; 300 ends an answer. */
const texts = {
  text: (ids: readonly number[]) => Promise.resolve(Buffer.from(ids).toString("utf8")),
  stopIds: () => Promise.resolve([300]),
};
const idsOf = (text: string): Int32Array => Int32Array.from(Buffer.from(text));

async function turnOf(prompt: string, sampled: Int32Array, given: Partial<LedgerCompletion> = {}) {
  const completion = completionOf("r", { promptSuffix: idsOf(prompt), sampled, ...given });
  return await sampledTurn({ message: 3, completion }, texts);
}

describe("a turn as it was sampled", () => {
  test("has all that the model wrote, but the token that ends it", async () => {
    const text = "<think>\n\n</think>\n\n<answer>4</answer>";
    const sampled = Int32Array.of(...idsOf(text), 300);
    expect(await turnOf("<|assistant|>", sampled)).toEqual({
      id: expect.stringMatching(/^cmpl_/),
      message: 3,
      text,
      finish_reason: "stop",
    });
  });

  test("is read whole: a character may be spread over tokens", async () => {
    expect((await turnOf("", idsOf("é 😀"))).text).toBe("é 😀");
  });

  test("begins with the thought that the template opened", async () => {
    expect((await turnOf("assistant\n<think>\n", idsOf("so\n</think>\n4"))).text).toBe(
      "<think>\nso\n</think>\n4",
    );
    expect((await turnOf("<think>\n\n</think>\n\n", idsOf("4"))).text).toBe("4");
    expect((await turnOf("a user's <think>", idsOf("4"), { kind: "text" })).text).toBe("4");
  });

  test("that was cut says so, and closes nothing", async () => {
    const cut = await turnOf("", idsOf("<think>on and on"), { finishReason: "length" });
    expect(cut).toMatchObject({ text: "<think>on and on", finish_reason: "length" });
  });
});
