import { completionAsSampled } from "./completion-text.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";

/** 1 if the answer begins with one `<think>…</think>`, else 0. This is TRL's `think_format_reward`. */
export function thinkFormat(): RewardFunction {
  return formatReward("think_format", isThinkFormat);
}

export function isThinkFormat(text: string): boolean {
  return /^<think>(?!.*<think>).*?<\/think>/s.test(text);
}

/**
 * 1 if the answer is `<think>…</think>`, then on a line of its own `<answer>…</answer>`, and nothing else; else 0.
 * An empty line between the two is allowed, because some bases always write one.
 */
export function thinkAnswerFormat(): RewardFunction {
  return formatReward("think_answer_format", isThinkAnswerFormat);
}

function isThinkAnswerFormat(text: string): boolean {
  return /^<think>[^<]*(?:<(?!\/?think>)[^<]*)*<\/think>\n{1,2}<answer>[\s\S]*?<\/answer>\n?$/.test(
    text,
  );
}

/** Null, which is no 0, where it is not known what was sampled. */
export function formatReward(name: string, fits: (text: string) => boolean): RewardFunction {
  return named(name, (trajectory) => {
    const text = completionAsSampled(trajectory);
    return text === null ? null : fits(text) ? 1 : 0;
  });
}
