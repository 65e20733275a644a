import { expect, test } from "vitest";
import { readOutcome } from "./rollout-outcome.ts";

test("what is said of single completions is kept, or refused by its place", () => {
  const completions = {
    chatcmpl_1: { trainable: false },
    chatcmpl_2: { weight: 0.5, advantage: -1 },
  };
  expect(readOutcome({ reward: 1, completions })).toMatchObject({ reward: 1, completions });
  expect(readOutcome({ reward: 1 })).not.toHaveProperty("completions");
  const wrong = [
    [{ a: { weight: 0 } }, "completions.a.weight"],
    [{ a: { reward: Number.NaN } }, "completions.a.reward"],
    [{ a: { reward: 1, advantage: 1 } }, "completions.a"],
    [{ a: { trainable: false, weight: 2 } }, "completions.a"],
    [{ a: { wait: 1 } }, "completions.a"],
    [3, "completions"],
  ] as const;
  for (const [given, param] of wrong) {
    const read = () => readOutcome({ reward: 1, completions: given });
    expect(read).toThrow(expect.objectContaining({ code: "invalid_reward", param }));
  }
});
