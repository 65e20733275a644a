import { completionWithThinking } from "./completion-text.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";

/** 1 where the answer begins with one `<think>…</think>`, else 0: TRL's `think_format_reward`. */
export function thinkFormat(): RewardFunction {
  return named("think_format", (trajectory) =>
    isThinkFormat(completionWithThinking(trajectory)) ? 1 : 0,
  );
}

export function isThinkFormat(text: string): boolean {
  return /^<think>(?!.*<think>).*?<\/think>/s.test(text);
}

/**
 * 1 where the answer is `<think>…</think>` and on the next line `<answer>…</answer>`, and nothing
 * else; else 0: the format of the GRPO tutorials.
 */
export function thinkAnswerFormat(): RewardFunction {
  return named("think_answer_format", (trajectory) =>
    isThinkAnswerFormat(completionWithThinking(trajectory)) ? 1 : 0,
  );
}

export function isThinkAnswerFormat(text: string): boolean {
  return /^<think>[^<]*(?:<(?!\/?think>)[^<]*)*<\/think>\n<answer>[\s\S]*?<\/answer>\n?$/.test(
    text,
  );
}
