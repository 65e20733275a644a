import type { TokenUsage } from "./prices.ts";

export type JudgeMessage =
  | { role: "system"; content: string }
  | { role: "user"; content: string }
  | { role: "assistant"; content: string };

export interface JudgeReply {
  content: string | null;
  reasoning: string | null;
  refusal: string | null;
  finishReason: string | null;
  /** The model that says it answered. */
  model: string;
  /** Null where the provider says nothing of it. */
  usage: TokenUsage | null;
  /** What the provider itself says (OpenRouter does), or what its usage comes to. Null where neither is known. */
  costUsd: number | null;
}
