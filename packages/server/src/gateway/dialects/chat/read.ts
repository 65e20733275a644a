import { HoneError, type ChatRequest, type ChatTool } from "@hone/core";
import { conversationKey, sameMessage, sameTools } from "../../../conversation/message-equality.ts";
import type { JsonFormat } from "../../../ports/engine.ts";
import { earlierOf, makeCall, type Call, type Caller, type GatewayParts } from "../../call.ts";
import { checkLength, shownTexts } from "../../prompt-length.ts";
import { makePrompt } from "../../prompt.ts";
import type { Repeated } from "../../retries.ts";

export interface ChatCall extends Call {
  request: ChatRequest;
  /** What the answer may call; null with `tool_choice: "none"`. */
  callable: readonly ChatTool[] | null;
}

/** What the schema cannot say: combinations that would be ignored in silence. */
export function checkRequest(request: ChatRequest): void {
  const refuse = (param: string, message: string) => {
    throw new HoneError(`${param}: ${message}`, { code: "unsupported_parameter", param });
  };
  if (request.stream_options && !request.stream) {
    refuse("stream_options", 'only with "stream": true. Leave it out, or stream.');
  }
  if (request.parallel_tool_calls === false && callableTools(request)) {
    refuse("parallel_tool_calls", "the model may call several tools at once. Leave it out.");
  }
  if (formatOf(request) && callableTools(request)) {
    refuse(
      "response_format",
      'a JSON answer leaves no room for a tool call. Leave it out, or send "tool_choice": "none".',
    );
  }
  const { max_tokens: old, max_completion_tokens: most } = request;
  if (old != null && most != null && old !== most) {
    refuse("max_tokens", `it is ${old}, and max_completion_tokens is ${most}. Send one of them.`);
  }
  if (request.top_logprobs != null && !request.logprobs) {
    refuse("top_logprobs", 'only with "logprobs": true. Leave it out, or ask for logprobs.');
  }
}

function formatOf({ response_format: wanted }: ChatRequest): JsonFormat | null {
  if (!wanted || wanted.type === "text") return null;
  if (wanted.type === "json_object") return wanted;
  return { type: wanted.type, schema: wanted.json_schema.schema };
}

/** Tools stay in the prompt whatever `tool_choice` says: a rollout whose turns differ in it is one sequence. */
function renderedTools({ tools }: ChatRequest): readonly ChatTool[] | null {
  return tools?.length ? tools : null;
}

function callableTools(request: ChatRequest): readonly ChatTool[] | null {
  return request.tool_choice === "none" ? null : renderedTools(request);
}

/** A request is repeated by the same messages and tools, held to the same shape. */
export function repeatedChat(request: ChatRequest): Repeated {
  const { messages } = request;
  const tools = renderedTools(request);
  const format = formatOf(request);
  return {
    key: () => conversationKey(messages, tools) + (format ? JSON.stringify(format) : ""),
    isAnswer: (completion) =>
      completion.kind === "chat" &&
      completion.constrained === (format !== null) &&
      completion.messages.length === messages.length &&
      completion.messages.every((message, i) => sameMessage(messages[i]!, message)) &&
      sameTools(completion.tools, tools),
  };
}

/** The format as engines take it. */
async function checkedFormat(
  parts: GatewayParts,
  request: ChatRequest,
): Promise<JsonFormat | null> {
  const format = formatOf(request);
  if (format?.type !== "json_schema") return format;
  return { ...format, schema: await parts.renderer.checkSchema(format.schema) };
}

/** Renders the prompt, and settles what the request left open. */
export async function prepareChat(
  parts: GatewayParts,
  caller: Caller,
  request: ChatRequest,
): Promise<ChatCall> {
  const tools = renderedTools(request);
  const { messages } = request;
  const format = await checkedFormat(parts, request);
  const [{ maxModelLen }, info] = await Promise.all([parts.engine.info(), parts.renderer.info()]);
  checkLength(shownTexts(messages), maxModelLen, info, "messages");
  const earlier = await earlierOf(parts, caller, repeatedChat(request));
  const call = await makeCall(parts, caller, {
    request,
    prompt: await makePrompt(parts.renderer, earlier, messages, tools),
    promptParam: "messages",
    kind: "chat",
    messages,
    tools,
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? null,
    topLogprobs: request.top_logprobs ?? 0,
    format,
    idPrefix: "chatcmpl",
  });
  return { ...call, request, callable: callableTools(request) };
}
