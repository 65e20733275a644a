import { arithmetic } from "./arithmetic-reward.ts";
import type { ArithmeticOptions } from "./arithmetic-reward.ts";
import { judgeCode } from "./code-reward.ts";
import type { CodeOptions } from "./code-reward.ts";
import { completionWithThinking, taggedAnswer, taggedAnswerOnOneLine } from "./completion-text.ts";
import { fencedCode } from "./completion-text.ts";
import { formatReward } from "./format-rewards.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";

/*
 * The three rewards of the GRPO tutorials for reasoning, with their own values and patterns. Where these differ from
 * the rewards of this package's own, the tutorial's way is taken: numbers that it gives can be compared.
 */

/** 1 if the answer is `<think>…</think>`, one line end, `<answer>…</answer>`, and nothing else; else 0. */
export function tutorialFormat(): RewardFunction {
  return formatReward("format", isTutorialFormat);
}

function isTutorialFormat(text: string): boolean {
  return /^<think>[^<]*(?:<(?!\/?think>)[^<]*)*<\/think>\n<answer>[\s\S]*?<\/answer>$/.test(
    text.trimEnd(),
  );
}

/**
 * 1 if the answer has the format and the expression in `<answer>` uses each given number once and comes to the
 * target within 1e-5; else 0.
 */
export function tutorialArithmetic(
  options: Pick<ArithmeticOptions, "numbers" | "target">,
): RewardFunction {
  const equation = arithmetic({ ...options, extract: taggedAnswerOnOneLine });
  return named("equation", async (trajectory, context) => {
    const reward = await equation(trajectory, context);
    if (reward === null) return null;
    return isTutorialFormat(completionWithThinking(trajectory)) ? reward : 0;
  });
}

/**
 * 1 if the code in `<answer>` parses, .3 if it has a syntax error, 0 if it imports what is forbidden or if there is
 * no `<answer>`. The code may stand in a fence within the tag.
 */
export function tutorialCode(
  options: Pick<CodeOptions, "language" | "forbiddenImports">,
): RewardFunction {
  return named("code", async (trajectory) => {
    const extract = (text: string): string | null => {
      const tagged = taggedAnswer(text);
      return tagged === null ? null : (fencedCode(tagged) ?? tagged);
    };
    const judged = await judgeCode(completionWithThinking(trajectory), { ...options, extract });
    return { fine: 1, broken: 0.3, forbidden: 0, none: 0 }[judged];
  });
}
