import {
  messageText,
  type CompletionRequest,
  type FinishReason,
  type TokenLogprob,
  type TextChunk,
  type TextCompletion,
} from "@hone/core";
import type { Told, Writer } from "../../answer-events.ts";
import type { PreparedAsk } from "../../prepare.ts";
import { createdNow, sse, streamEnd } from "../openai.ts";
import { createTextLogprobs } from "./logprobs.ts";

/** `text_completion`, and its chunks. */
export function writeCompletion(
  request: CompletionRequest,
  { policy: model, answerId: id, engineRequest }: PreparedAsk,
): Writer {
  const object = "text_completion";
  const created = createdNow();
  const withUsage = request.stream_options?.include_usage;
  const writers = Array.from({ length: engineRequest.n }, createTextLogprobs);
  const begun = new Set<number>();

  function choice<F extends "stop" | "length" | null>(
    { index, ids, logprobs }: Told,
    text: string,
    reason: F,
  ) {
    const first = !begun.has(index);
    begun.add(index);
    return {
      index,
      text,
      logprobs: logprobs && writers[index]!.write(logprobs),
      finish_reason: reason,
      ...(request.return_token_ids && {
        token_ids: [...ids],
        ...(first && { prompt_token_ids: [...engineRequest.prompt] }),
      }),
    };
  }

  function chunk(choices: TextChunk["choices"], usage: TextChunk["usage"] = null): string {
    const value: TextChunk = { id, object, created, model, choices, ...(withUsage && { usage }) };
    return sse(value);
  }

  return {
    whole: (choices, usage): TextCompletion => ({
      id,
      object,
      created,
      model,
      choices: choices.map((told) => ({
        ...choice(told, messageText(told.message), textReason(told.finishReason)),
        ...(told.promptLogprobs && {
          prompt_logprobs: byId(engineRequest.prompt, told.promptLogprobs),
        }),
      })),
      usage,
    }),

    event(event) {
      switch (event.type) {
        case "text-delta": {
          const tellsTokens = event.logprobs !== null || request.return_token_ids === true;
          // The text so far is half a character, or may become a stop string, so nothing can be told yet.
          if (!event.text && !(tellsTokens && event.ids.length > 0)) return "";
          return chunk([choice(event, event.text, null)]);
        }
        case "finish":
          return chunk([choice(event, event.text, textReason(event.reason))]);
        case "end":
          return (withUsage ? chunk([], event.usage) : "") + streamEnd;
        case "failure":
          return sse(event.error.toEnvelope());
        // A plain prompt's answer has no reasoning and no calls, and nothing is told before its text.
        default:
          return "";
      }
    },
  };
}

/** As vLLM writes them. */
function byId(prompt: readonly number[], told: readonly TokenLogprob[]) {
  const entries = told.map(({ token, logprob }, at) => ({
    [String(prompt[at + 1])]: { logprob, decoded_token: token },
  }));
  return [null, ...entries];
}

/** Nothing is called in plain text. */
function textReason(reason: FinishReason): "stop" | "length" {
  return reason === "length" ? "length" : "stop";
}
