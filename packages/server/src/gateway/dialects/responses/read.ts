import {
  messageText,
  type AssistantMessage,
  type ChatMessage,
  type ChatTool,
  type ResponsesContent,
  type ResponsesItem,
  type ResponsesRequest,
  type ResponsesTool,
} from "@hone/core";
import type { JsonFormat } from "../../../ports/engine.ts";
import type { ChatAsk, RecallingAsk } from "../../ask.ts";
import type { LedgerCompletion } from "../../../ports/ledger.ts";
import { refusal } from "../openai.ts";
import { readCalls, type CallWish } from "../tool-choice.ts";
import { recallAnswer, ownerOf, recallItem, type GivenItem } from "./recall.ts";

/** `POST /v1/responses`. What its schema cannot say is checked here. */
export function readResponses(request: ResponsesRequest): ChatAsk | RecallingAsk {
  const { input, instructions, previous_response_id: previous } = request;
  if (request.stream_options && !request.stream) {
    throw refusal("stream_options", 'only with "stream": true. Leave it out, or stream.');
  }
  if (request.truncation === "auto") {
    throw refusal("truncation", "no prompt is cut here. Leave it out, and shorten the input.");
  }
  if (request.background) {
    throw refusal("background", "answers are not kept. Leave it out, and wait for the answer.");
  }
  const items: readonly ResponsesItem[] =
    typeof input === "string" ? [{ role: "user", content: input }] : input;
  const system: ChatMessage[] = instructions ? [{ role: "system", content: instructions }] : [];
  const ask: Omit<ChatAsk, "messages"> = {
    kind: "chat",
    param: "input",
    model: request.model,
    ...readCalls(callsOf(request)),
    format: formatOf(request),
    n: 1,
    maxTokens: request.max_output_tokens ?? null,
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    seed: null,
    stop: [],
    logprobs: null,
    stream: request.stream === true,
  };
  const recall = (earlier: readonly LedgerCompletion[] | null): ChatAsk => {
    const before = previous == null ? null : recallAnswer(earlier, previous);
    let after = before?.id;
    const given = items.map((item, index): GivenItem => {
      if (item.type !== "item_reference") return item;
      const named = recallItem(earlier, item.id, `input[${index}].id`);
      after = named.id;
      return named.item;
    });
    // The instructions of the answer before are not among them: OpenAI's do not last either.
    const messages = [...system, ...(before?.messages ?? []), ...readItems(given)];
    return { ...ask, messages, after };
  };
  const names = previous != null || items.some(({ type }) => type === "item_reference");
  return names ? { model: request.model, key: JSON.stringify(request), recall } : recall(null);
}

function callsOf({
  tools,
  tool_choice: choice,
  parallel_tool_calls: parallel,
}: ResponsesRequest): CallWish {
  const wish: CallWish = {
    tools: tools?.length ? tools.map(readTool) : null,
    choice: "auto",
    only: null,
    single: parallel === false,
    param: "tool_choice",
  };
  if (!choice) return wish;
  if (typeof choice === "string") return { ...wish, choice };
  // As in chats, a named function is one call.
  if (choice.type === "function") {
    return { ...wish, choice: "required", only: [choice.name], single: true };
  }
  return { ...wish, choice: choice.mode, only: choice.tools.map(({ name }) => name) };
}

function readTool({ name, description, parameters, strict }: ResponsesTool): ChatTool {
  return {
    type: "function",
    function: {
      name,
      ...(description != null && { description }),
      ...(parameters != null && { parameters }),
      ...(strict != null && { strict }),
    },
  };
}

/** Thoughts, text and calls of one answer are items of their own, and in a chat one message. */
function readItems(items: readonly GivenItem[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  let answer: AssistantMessage | null = null;
  let owner: string | null = null;
  for (const item of items) {
    if (item.type === "function_call_output") {
      answer = null;
      const content = textOf(item.output);
      messages.push({ role: "tool", tool_call_id: item.call_id, content });
    } else if (isSaid(item) && item.role !== "assistant") {
      answer = null;
      messages.push({ role: item.role, content: textOf(item.content) });
    } else {
      const own = ownerOf(item);
      if (answer === null || (own && owner ? own !== owner : goesBack(answer, item))) {
        answer = { role: "assistant", content: null };
        messages.push(answer);
        owner = null;
      }
      owner ??= own;
      addTo(answer, item);
    }
  }
  for (const message of messages) {
    if (message.role === "assistant" && !message.tool_calls) message.content ??= "";
  }
  return messages;
}

/** Two answers may follow each other. Where ids do not say so: an answer's thoughts come first, then its text, then its calls. */
function goesBack({ content, tool_calls: calls, ...answer }: AssistantMessage, item: GivenItem) {
  if (item.type === "function_call") return false;
  const begun = content !== null || calls !== undefined;
  return item.type === "reasoning" ? begun || Boolean(answer.reasoning_content) : begun;
}

function addTo(answer: AssistantMessage, item: GivenItem): void {
  if (item.type === "function_call") {
    const { call_id: id, name, arguments: given } = item;
    const call = { id, type: "function" as const, function: { name, arguments: given } };
    answer.tool_calls = [...(answer.tool_calls ?? []), call];
  } else if (item.type === "reasoning") {
    const thoughts = (item.content?.length ? item.content : item.summary) ?? [];
    const thought = thoughts.map(({ text }) => text).join("");
    if (thought) answer.reasoning_content = (answer.reasoning_content ?? "") + thought;
  } else if (isSaid(item)) {
    const said = textOf(item.content);
    if (said) answer.content = messageText(answer) + said;
  }
}

type SaidItem = Extract<GivenItem, { role: string; content: ResponsesContent }>;

/** Messages may leave their type out. */
function isSaid(item: GivenItem): item is SaidItem {
  return item.type === undefined || item.type === "message";
}

function textOf(content: ResponsesContent): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "refusal" ? part.refusal : part.text)).join("");
}

function formatOf({ text }: ResponsesRequest): JsonFormat | null {
  const wanted = text?.format;
  if (!wanted || wanted.type === "text") return null;
  if (wanted.type === "json_object") return { type: "json_object" };
  return { type: "json_schema", schema: wanted.schema };
}
