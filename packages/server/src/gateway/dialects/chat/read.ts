import type { ChatRequest } from "@hone/core";
import type { JsonFormat } from "../../../ports/engine.ts";
import type { ChatAsk } from "../../ask.ts";
import { readShared, refusal } from "../openai.ts";

/** `POST /v1/chat/completions`. What its schema cannot say is checked here. */
export function readChat(request: ChatRequest): ChatAsk {
  const shared = readShared(request);
  const { messages, max_tokens: old, max_completion_tokens: most } = request;
  const tools = request.tools?.length ? request.tools : null;
  const callable = request.tool_choice === "none" ? null : tools;
  const format = formatOf(request);
  if (request.parallel_tool_calls === false && callable) {
    throw refusal("parallel_tool_calls", "the model may call several tools at once. Leave it out.");
  }
  if (format && callable) {
    throw refusal(
      "response_format",
      'a JSON answer leaves no room for a tool call. Leave it out, or send "tool_choice": "none".',
    );
  }
  if (old != null && most != null && old !== most) {
    throw refusal(
      "max_tokens",
      `it is ${old}, and max_completion_tokens is ${most}. Send one of them.`,
    );
  }
  if (request.top_logprobs != null && !request.logprobs) {
    throw refusal("top_logprobs", 'only with "logprobs": true. Leave it out, or ask for logprobs.');
  }
  return {
    kind: "chat",
    param: "messages",
    ...shared,
    messages,
    tools,
    callable,
    format,
    maxTokens: most ?? old ?? null,
    logprobs: request.logprobs ? (request.top_logprobs ?? 0) : null,
  };
}

function formatOf({ response_format: wanted }: ChatRequest): JsonFormat | null {
  if (!wanted || wanted.type === "text") return null;
  if (wanted.type === "json_object") return wanted;
  return { type: wanted.type, schema: wanted.json_schema.schema };
}
