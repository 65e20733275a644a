import type { ChatMessage, ChatTool } from "@hone/core";
import type { JsonFormat } from "../ports/engine.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

/** What a request asks for, in whatever dialect it came. */
export type Ask = ChatAsk | PlainAsk;

/** A request that names earlier answers of its rollout in place of repeating them. */
export interface RecallingAsk {
  model: string;
  /** Equal for every try of the same request. */
  key: string;
  /** `earlier`: the completions of the rollout so far; null outside of a rollout. */
  recall(earlier: readonly LedgerCompletion[] | null): ChatAsk;
}

/** A conversation to be answered. */
export interface ChatAsk extends Sampling {
  kind: "chat";
  messages: readonly ChatMessage[];
  /** The completion that the request names as the one it goes on from. It wins over others that say the same. */
  after?: string | undefined;
  /**
   * The tools that the prompt shows, whether or not they may be called this time. So turns that differ only in that
   * are one sequence. Null: none.
   */
  tools: readonly ChatTool[] | null;
  /** What the answer may call; null: a sampled call is text. */
  callable: readonly ChatTool[] | null;
  /** Whether it has to call; needs `callable`. @default false */
  mustCall?: boolean | undefined;
  /** Whether it ends with its first call. @default false */
  oneCall?: boolean | undefined;
  /** What the answer is held to where it does not call; null: nothing. */
  format: JsonFormat | null;
}

/** Whether a grammar holds the answer: to a format, to a call, or to either. */
export function isHeld({ format, mustCall }: ChatAsk): boolean {
  return format !== null || mustCall === true;
}

/** A plain prompt to be continued. There is no template, and the answer is not parsed. */
export interface PlainAsk extends Sampling {
  kind: "text";
  /** A text, or its token ids. */
  prompt: string | readonly number[];
  /** Tells how likely each token of the prompt is. */
  promptLogprobs: boolean;
}

interface Sampling {
  /** A model's name, or a policy's. */
  model: string;
  /** The request's field that holds the prompt: errors about the prompt name it. */
  param: string;
  n: number;
  /** Null: as many as the context holds. */
  maxTokens: number | null;
  temperature: number;
  topP: number;
  seed: number | null;
  stop: readonly string[];
  /** How many of the likeliest tokens are told beside each sampled one; null: no logprobs at all. */
  logprobs: number | null;
  stream: boolean;
}
