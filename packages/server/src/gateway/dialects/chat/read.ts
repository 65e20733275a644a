import type { ChatRequest } from "@hone/core";
import type { JsonFormat } from "../../../ports/engine.ts";
import type { ChatAsk } from "../../ask.ts";
import { readShared, refusal } from "../openai.ts";
import { readCalls, type CallWish } from "../tool-choice.ts";

/** `POST /v1/chat/completions`. What its schema cannot say is checked here. */
export function readChat(request: ChatRequest): ChatAsk {
  const shared = readShared(request);
  const { messages, max_tokens: old, max_completion_tokens: most } = request;
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
    ...readCalls(callsOf(request)),
    format: formatOf(request),
    maxTokens: most ?? old ?? null,
    logprobs: request.logprobs ? (request.top_logprobs ?? 0) : null,
  };
}

function callsOf(request: ChatRequest): CallWish {
  const { tool_choice: choice, parallel_tool_calls: parallel } = request;
  const wish: CallWish = {
    tools: request.tools?.length ? request.tools : null,
    choice: "auto",
    only: null,
    single: parallel === false,
    param: "tool_choice",
  };
  if (!choice) return wish;
  if (typeof choice === "string") return { ...wish, choice };
  if (choice.type === "function") {
    // OpenAI's API answers a named function with one call.
    return { ...wish, choice: "required", only: [choice.function.name], single: true };
  }
  const { mode, tools } = choice.allowed_tools;
  return { ...wish, choice: mode, only: tools.map((tool) => tool.function.name) };
}

function formatOf({ response_format: wanted }: ChatRequest): JsonFormat | null {
  if (!wanted || wanted.type === "text") return null;
  if (wanted.type === "json_object") return wanted;
  return { type: wanted.type, schema: wanted.json_schema.schema };
}
