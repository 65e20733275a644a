import type { ChatMessage, ChatTool } from "@hone/core";

/** One sampled completion, as the ledger keeps it. Token arrays are never re-tokenised text. */
export interface LedgerCompletion {
  id: string;
  rolloutId: string;
  /** Order within the rollout, from 0. */
  seq: number;
  /** "chat", or "text" for a plain prompt (`POST /v1/completions`). */
  kind: "chat" | "text";
  /** The completion whose prompt + sampled ids this prompt begins with; null for a root. */
  parentId: string | null;
  /** The prompt after the parent's ids; the whole prompt of a root. */
  promptSuffix: Int32Array;
  sampled: Int32Array;
  /** The sampler's logprob of each sampled id. */
  logprobs: Float32Array;
  policy: string;
  temperature: number;
  topP: number;
  seed: number | null;
  /** Whether a grammar constrained the sampling (`response_format`). */
  constrained: boolean;
  finishReason: "stop" | "length" | "tool_calls";
  /** Which of the n choices this is, and how many there were. */
  choice: number;
  choices: number;
  /**
   * The request's messages and tools, and the assistant's answer as it was delivered. A plain prompt is one
   * user message with its text; where it continues an earlier completion it is that one's messages, its
   * answer, and a user message with the text that came after (none where nothing did).
   */
  messages: readonly ChatMessage[];
  tools: readonly ChatTool[] | null;
  answer: ChatMessage;
  /** True once the response has been written whole to the client. Only then may it train. */
  delivered: boolean;
  /** Why it did not extend an earlier completion although the rollout had some. Null if it did. */
  splitReason: "edited_history" | "cannot_bridge" | "tools_changed" | "new_conversation" | null;
  createdAt: number;
}

/** What the gateway needs of the ledger. Open rollouts are read from memory. */
export interface Ledger {
  /** Completions of a rollout in order. */
  list(rolloutId: string): Promise<readonly LedgerCompletion[]>;
  append(completions: readonly LedgerCompletion[]): Promise<void>;
  /** The response went out whole. */
  markDelivered(ids: readonly string[]): Promise<void>;
  /** Marks answers that went out and were not received after all: the client asked again. */
  markUnreceived(ids: readonly string[]): Promise<void>;
}
