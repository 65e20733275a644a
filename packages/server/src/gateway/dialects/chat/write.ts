import type { ChatChunk, ChatCompletion, ChatRequest } from "@hone/core";
import type { Told, Writer } from "../../answer-events.ts";
import type { PreparedAsk } from "../../prepare.ts";
import { createdNow, sse, streamEnd } from "../openai.ts";

type ChunkChoice = ChatChunk["choices"][number];

/** `chat.completion`, and its chunks. */
export function writeChat(request: ChatRequest, prepared: PreparedAsk): Writer {
  const id = `chat${prepared.answerId}`;
  const created = createdNow();
  const model = prepared.policy;
  const withUsage = request.stream_options?.include_usage;

  function chunk(choices: ChunkChoice[], usage: ChatChunk["usage"] = null): string {
    const value: ChatChunk = {
      id,
      object: "chat.completion.chunk",
      created,
      model,
      choices,
      ...(withUsage && { usage }),
    };
    return sse(value);
  }

  function delta(
    { index, logprobs }: Omit<Told, "ids">,
    said: ChunkChoice["delta"],
    reason: ChunkChoice["finish_reason"] = null,
  ): string {
    const told = logprobs?.length ? { content: logprobs, refusal: null } : null;
    return chunk([{ index, delta: said, logprobs: told, finish_reason: reason }]);
  }

  return {
    whole: (choices, usage): ChatCompletion => ({
      id,
      object: "chat.completion",
      created,
      model,
      choices: choices.map(({ index, message, logprobs, finishReason }) => {
        const { content, tool_calls: calls, reasoning_content: reasoning } = message;
        return {
          index,
          message: {
            role: "assistant",
            content: typeof content === "string" ? content : null,
            refusal: null,
            ...(calls && { tool_calls: calls }),
            ...(reasoning && { reasoning_content: reasoning }),
          },
          logprobs: logprobs && { content: logprobs, refusal: null },
          finish_reason: finishReason,
        };
      }),
      usage,
    }),

    event(event) {
      switch (event.type) {
        case "start":
          return Array.from({ length: prepared.engineRequest.n }, (_, index) =>
            delta({ index, logprobs: null }, { role: "assistant", content: "" }),
          ).join("");
        case "text-delta":
          return delta(event, { content: event.text });
        case "reasoning-delta":
          return delta(event, { reasoning_content: event.text });
        case "calls":
          return delta(event, {
            tool_calls: event.calls.map((made, index) => ({ index, ...made })),
          });
        case "finish":
          return delta(event, {}, event.reason);
        case "end":
          return (withUsage ? chunk([], event.usage) : "") + streamEnd;
        default:
          return sse(event.error.toEnvelope());
      }
    },
  };
}
