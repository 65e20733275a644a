import type {
  AssistantMessage,
  FinishReason,
  HoneError,
  TokenLogprob,
  ToolCall,
  Usage,
} from "@hone/core";

/** An answer while it is sampled, in whatever dialect it is told. */
export type AnswerEvent =
  /** The headers are out: sampling has begun. */
  | { type: "start" }
  | (Told & { type: "text-delta" | "reasoning-delta"; text: string })
  /** All tool calls of a choice. */
  | (Told & { type: "calls"; calls: readonly ToolCall[] })
  /** A choice is complete. `text` is the rest of a plain prompt's answer, and empty for a chat. */
  | (Told & {
      type: "finish";
      text: string;
      reason: FinishReason;
      /** Which of the ask's stop strings ended a chat's answer. Null: none did. */
      stopString?: string | null | undefined;
    })
  /** All choices are complete. Nothing follows. */
  | { type: "end"; usage: Usage }
  /** In place of the end. */
  | { type: "failure"; error: HoneError };

/** What every event of a choice tells. */
export interface Told {
  index: number;
  /** The ids that were sampled since the choice's last event. */
  ids: readonly number[];
  /** One for each id. Null where logprobs are not asked for. */
  logprobs: TokenLogprob[] | null;
}

/** A choice of an answer that is told whole. */
export interface Choice extends Told {
  message: AssistantMessage;
  finishReason: FinishReason;
  /** Which of the ask's stop strings ended a chat's answer. Null: none did. */
  stopString?: string | null | undefined;
  /** Of the prompt's tokens but the first; only where they are asked for. */
  promptLogprobs?: readonly TokenLogprob[] | undefined;
}

/** How a dialect tells the answer to one request. */
export interface Writer {
  /** The body of a response that is not streamed. */
  whole(choices: readonly Choice[], usage: Usage): unknown;
  /** What goes out for an event of a stream; empty where the dialect has nothing to tell. */
  event(event: AnswerEvent): string;
}
