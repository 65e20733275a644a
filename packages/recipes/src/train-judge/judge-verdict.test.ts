import { describe, expect, it } from "vitest";
import {
  openJudgeVerdicts,
  pairwiseReward,
  pointwiseReward,
  strictVerdicts,
  swapped,
} from "./judge-verdict.ts";

describe("a mark", () => {
  it.each([
    ["<think>good</think><score>3</score>", 3, 3],
    ["<score> 4 </score>", 4, 4],
    ["Quite good: <score>0</score>.", 0, 0],
    // OpenJudge gives credit where there is no verdict; we do not.
    ["no tag at all", null, 0],
    ["<score>10</score>", null, 0],
    ["<score>-1</score>", null, 1],
    ["<score>3.5</score>", null, 3],
    ["<score>3 of 4</score>", null, 3],
    ["<score></score>", null, 0],
    ["<score>1</score> or <score>4</score>", null, 1],
    ["<score>5</score>", null, 0],
    // A thought is no verdict, whether it ends or not.
    ["<think><score>4</score></think>", null, 0],
    ["<think><score>4</score>", null, 4],
    ["<think>a</think><score>2</score><think>b</think>", null, 2],
    ["<think><score>1</score></think><score>2</score>", 2, 2],
  ])("of %j is %j strictly, %j as OpenJudge reads it", (text, strict, parity) => {
    expect(strictVerdicts.pointwise(text)).toBe(strict);
    expect(openJudgeVerdicts.pointwise(text)).toBe(parity);
  });
});

describe("a preference", () => {
  it.each([
    ["<think>…</think>\n<better>A</better>", "A", "A"],
    ["<better>tie</better>", "tie", "tie"],
    ["<better>a</better>", null, "A"],
    ["<better>TIE</better>", null, "tie"],
    ["<better>Response B</better>", null, "B"],
    ["<better>A or B</better>", null, "tie"],
    ["<better>neither</better>", null, null],
    ["Both are about equal", null, "tie"],
    ["I think\nresponse A is better", null, "A"],
    ["A", null, "A"],
    ["nothing", null, null],
    ["<better>A</better><better>B</better>", null, "A"],
    ["<think><better>A</better></think>", null, null],
  ])("of %j is %j strictly, %j as OpenJudge reads it", (text, strict, parity) => {
    expect(strictVerdicts.pairwise(text)).toBe(strict);
    expect(openJudgeVerdicts.pairwise(text)).toBe(parity);
  });

  it("changes with the order of the answers, a tie does not", () => {
    expect((["A", "B", "tie"] as const).map(swapped)).toEqual(["B", "A", "tie"]);
  });
});

it("rewards marks of 0 and 1 if they are exact, and others by their distance", () => {
  const rewards = [0, 1, 2, 3, 4].map((label) =>
    [0, 1, 2, 3, 4].map((said) => pointwiseReward(said, label)),
  );
  expect(rewards).toEqual([
    [1, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0.5, 0.75, 1, 0.75, 0.5],
    [0.25, 0.5, 0.75, 1, 0.75],
    [0, 0.25, 0.5, 0.75, 1],
  ]);
  expect([0, 4].map((label) => pointwiseReward(null, label))).toEqual([0, 0]);
});

it("rewards the very preference and nothing else", () => {
  expect([
    pairwiseReward("tie", "tie"),
    pairwiseReward("A", "A"),
    pairwiseReward("A", "tie"),
  ]).toEqual([1, 1, 0]);
  expect(pairwiseReward(null, "tie")).toBe(0);
});
