import type { ShownAttempt, ShownPrompt } from "./judge-prompt.ts";

/** What a scripted judge does with one request. */
export type JudgeStep =
  /** Scores each attempt. */
  | {
      type: "score";
      scorer: Scorer;
      delayMs?: number | undefined;
      usage?: StepUsage | null | undefined;
    }
  /** Answers with this text, whatever was asked. */
  | {
      type: "text";
      content: string | ((prompt: ShownPrompt) => string);
      finishReason?: string | undefined;
      refusal?: string | undefined;
      delayMs?: number | undefined;
    }
  /** An HTTP error in OpenAI's envelope. */
  | {
      type: "error";
      status: number;
      code?: string | undefined;
      message?: string | undefined;
      headers?: Readonly<Record<string, string>> | undefined;
      inBody?: boolean | undefined;
    }
  /** A body that breaks off in the middle, under status 200. */
  | { type: "cut-body" }
  /** Closes the connection without an answer. */
  | { type: "hang-up" }
  /** Never answers. */
  | { type: "silence" }
  /** Sends headers of status 200 and then nothing, or blank lines without end. */
  | { type: "silent-body"; blankLines: boolean };

export interface StepUsage {
  promptTokens: number;
  cachedTokens?: number | undefined;
  completionTokens: number;
}

export interface Score {
  score: number;
  explanation?: string | undefined;
}
/** The rule that a scripted judge follows: what an attempt is worth, from 0 to 1. */
export type Scorer = (attempt: ShownAttempt, prompt: ShownPrompt) => number | Score;

/** Scores every attempt by the rule. With `usage: null` the answer says nothing of its tokens. */
export function score(
  scorer: Scorer,
  options: { delayMs?: number | undefined; usage?: StepUsage | null | undefined } = {},
): JudgeStep {
  return { type: "score", scorer, ...options };
}

export function answerText(
  content: string | ((prompt: ShownPrompt) => string),
  options: { finishReason?: string | undefined; delayMs?: number | undefined } = {},
): JudgeStep {
  return { type: "text", content, ...options };
}

export function refusal(text: string): JudgeStep {
  return { type: "text", content: "", refusal: text };
}

export function httpError(
  status: number,
  options: {
    code?: string | undefined;
    message?: string | undefined;
    headers?: Readonly<Record<string, string>> | undefined;
    /** Sent under status 200, the real one as the error's code, as OpenRouter does. */
    inBody?: boolean | undefined;
  } = {},
): JudgeStep {
  return { type: "error", status, ...options };
}

export function tooManyRequests(retryAfterSeconds: number): JudgeStep {
  return httpError(429, {
    code: "rate_limit_exceeded",
    headers: { "retry-after": String(retryAfterSeconds) },
  });
}

export function quotaExhausted(): JudgeStep {
  return httpError(429, { code: "insufficient_quota", message: "You exceeded your quota." });
}

export const cutBody: JudgeStep = { type: "cut-body" };
export const hangUp: JudgeStep = { type: "hang-up" };
export const silence: JudgeStep = { type: "silence" };

/** Headers, and then nothing or blank lines, as some providers send them while a request waits. */
export function silentBody(options: { blankLines?: boolean } = {}): JudgeStep {
  return { type: "silent-body", blankLines: options.blankLines ?? false };
}

/** Text that is no JSON. */
export function garbage(): JudgeStep {
  return answerText("I would say that the first one is the best, then the third.");
}

/** JSON that breaks off, as from a judge with too few tokens. */
export function partialJson(): JudgeStep {
  return answerText((prompt) => answer(prompt, () => 0.5).slice(0, -20), {
    finishReason: "length",
  });
}

/** One entry for each attempt, under ids that are not theirs. */
export function wrongIds(): JudgeStep {
  return answerText((prompt) =>
    JSON.stringify({
      scores: prompt.attempts.map((_, index) => ({
        id: String(index + 1),
        explanation: "by place",
        score: 0.5,
      })),
    }),
  );
}

/** A valid answer to a prompt; `change` may spoil it. */
export function answer(
  prompt: ShownPrompt,
  scorer: Scorer,
  change: (entries: { id: string; explanation: string; score: number }[]) => unknown = (entries) =>
    entries,
): string {
  const entries = prompt.attempts.map((attempt) => {
    const given = scorer(attempt, prompt);
    const { score: value, explanation = "By the rule." } =
      typeof given === "number" ? { score: given } : given;
    return { id: attempt.id, explanation, score: value };
  });
  return JSON.stringify({ scores: change(entries) });
}
