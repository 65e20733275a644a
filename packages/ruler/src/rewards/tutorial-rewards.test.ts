import { describe, expect, it } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import type { RewardFunction } from "./reward-function.ts";
import { tutorialArithmetic, tutorialCode, tutorialFormat } from "./tutorial-rewards.ts";

const giveAll = (fn: RewardFunction, texts: readonly string[]) =>
  Promise.all(texts.map(async (text) => fn(trajectory(text), { group: group([]), index: 0 })));

describe("the tutorial's rewards", () => {
  const texts = [
    "<think>55 + 36 - 7 - 19 is 65.</think>\n<answer> 55 + 36 - 7 - 19 </answer>",
    "<think>55 + 36\nthen less</think>\n<answer>55 + 36 - 7 - 19</answer>",
    "Using the numbers [19, 36, 55, 7], create an equation that equals 65.",
    "Right, and in no such form: <answer>55 + 36 - 7 - 19</answer>",
    "<think>close</think>\n<answer>55 + 36 - 7 - 18</answer>",
    "<think>twice</think>\n<answer>55 + 36 - 7 - 19 + 7 - 7</answer>",
  ];

  it("give format and equation on samples of each kind", async () => {
    expect(await giveAll(tutorialFormat(), texts)).toEqual([1, 1, 0, 0, 1, 1]);
    const equation = tutorialArithmetic({ numbers: () => [19, 36, 55, 7], target: () => "65" });
    expect(await giveAll(equation, texts)).toEqual([1, 1, 0, 0, 0, 0]);
  });

  it("give .3 for code with a syntax error, nothing for a forbidden import or no tag", async () => {
    const code = tutorialCode({ language: "python", forbiddenImports: ["os"] });
    const answer = (text: string) => `<think>so</think>\n<answer>\n${text}\n</answer>`;
    expect(
      await giveAll(code, [
        answer("def f(x):\n    return x"),
        answer("```python\ndef f(x):\n    return x\n```"),
        answer("def f(x)\n    return x"),
        answer("import os\nos.getcwd()"),
        answer("import os\nos.getcwd("),
        "```python\nx = 1\n```",
        answer(""),
      ]),
    ).toEqual([1, 1, 0.3, 0, 0, 0, 0]);
  });

  it("refuse a target that is no number by name, and do not apply without a task", async () => {
    const [nan] = await giveAll(
      tutorialArithmetic({ numbers: () => [1], target: () => "x" }),
      texts,
    );
    expect(nan).toBeNaN();
    const none = tutorialArithmetic({ numbers: () => null, target: () => 1 });
    expect(await giveAll(none, ["x"])).toEqual([null]);
  });
});
