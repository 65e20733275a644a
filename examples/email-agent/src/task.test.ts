import { expect, it } from "vitest";
import task from "./task.ts";

it("refuses settings that would do nothing or cannot be played", () => {
  const check = (given: object) => () =>
    task.checkSettings?.({
      turns: 6,
      agent: "openai",
      reward: "gold",
      judge: "",
      sft: 0,
      mcp: false,
      ...given,
    });
  expect(check({})).not.toThrow();
  expect(check({ reward: "ruler", judge: "openai/o4-mini" })).not.toThrow();
  expect(check({ reward: "ruler" })).not.toThrow();
  expect(check({ sft: 420 })).not.toThrow();
  expect(check({ sft: 421 })).toThrow("--sft is a number of transcripts from 0 to 420");
  expect(check({ judge: "openai/o4-mini" })).toThrow("--judge is for --reward ruler");
  expect(check({ reward: "silver" })).toThrow("--reward is gold or ruler");
  expect(check({ turns: 2 })).toThrow("--turns");
});
