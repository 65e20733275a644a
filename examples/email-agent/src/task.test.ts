import { expect, it } from "vitest";
import task from "./task.ts";

it("refuses settings that would do nothing or cannot be played", () => {
  const check = (given: object) => () =>
    task.checkSettings?.({ turns: 6, reward: "gold", judge: "", ...given });
  expect(check({})).not.toThrow();
  expect(check({ reward: "ruler", judge: "openai/o4-mini" })).not.toThrow();
  expect(check({ reward: "ruler" })).toThrow("--reward ruler needs a judge");
  expect(check({ judge: "openai/o4-mini" })).toThrow("--judge is for --reward ruler");
  expect(check({ reward: "silver" })).toThrow("--reward is gold or ruler");
  expect(check({ turns: 2 })).toThrow("--turns");
});
