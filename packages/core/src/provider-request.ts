import type { ChatMessage, ChatTool } from "./chat.ts";
import {
  assistantMessage,
  fieldsOf,
  listOf,
  readContent,
  readSaid,
  textField,
  toChatMessage,
} from "./provider-message.ts";
import type { Said } from "./provider-message.ts";

/** What a model was asked, in our own words. */
export interface ProviderRequest {
  messages: ChatMessage[];
  tools: ChatTool[] | null;
  /** The answer that it goes on from, where the provider keeps the conversation. */
  previousId: string | null;
}

/** Reads the body of a request to any of the APIs whose answers are read. Null where it asks no model. */
export function readProviderRequest(value: unknown): ProviderRequest | null {
  const body = fieldsOf(value);
  const tools = listOf(body["tools"]).flatMap(toTool);
  const rest = {
    tools: tools.length > 0 ? tools : null,
    previousId: textField(body["previous_response_id"]),
  };
  if (Array.isArray(body["messages"])) {
    const system = readContent(body["system"]).content;
    const first: ChatMessage[] = system === null ? [] : [{ role: "system", content: system }];
    return { ...rest, messages: [...first, ...listOf(body["messages"]).flatMap(toMessages)] };
  }
  if ("input" in body && (typeof body["input"] === "string" || Array.isArray(body["input"]))) {
    const instructions = textField(body["instructions"]);
    const first: ChatMessage[] =
      instructions === null ? [] : [{ role: "system", content: instructions }];
    const input = body["input"];
    const items = typeof input === "string" ? [{ role: "user", content: input }] : listOf(input);
    return { ...rest, messages: [...first, ...ofItems(items)] };
  }
  const prompt = textField(body["prompt"]);
  return prompt === null ? null : { ...rest, messages: [{ role: "user", content: prompt }] };
}

/** Anthropic's tool results stand in a user's message: they are messages of their own. */
function toMessages(given: unknown): ChatMessage[] {
  const message = fieldsOf(given);
  const parts = listOf(message["content"]).map(fieldsOf);
  const results = parts.filter(({ type }) => type === "tool_result");
  if (results.length === 0) return [toChatMessage(given)];
  const others = parts.filter(({ type }) => type !== "tool_result");
  return [
    ...results.map((part): ChatMessage => ({
      role: "tool",
      tool_call_id: textField(part["tool_use_id"]) ?? "call",
      content: readContent(part["content"]).content ?? "",
    })),
    ...(others.length > 0 ? [toChatMessage({ ...message, content: others })] : []),
  ];
}

/** The items of the Responses API: thoughts and calls belong to the answer that they stand beside. */
function ofItems(items: readonly unknown[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  let open: Said | null = null;
  const close = (): void => {
    if (open) messages.push(assistantMessage(open));
    open = null;
  };
  for (const given of items) {
    const item = fieldsOf(given);
    const type = textField(item["type"]);
    if (type === "function_call_output") {
      close();
      const output = item["output"];
      const content = typeof output === "string" ? output : (readContent(output).content ?? "");
      messages.push({ role: "tool", tool_call_id: textField(item["call_id"]) ?? "call", content });
    } else if (item["role"] === "assistant" || type === "function_call" || type === "reasoning") {
      const said = item["role"] === "assistant" ? readSaid(item) : readContent([item]);
      open ??= { content: null, reasoning: null, refusal: null, calls: [] };
      if (said.content !== null) open.content = (open.content ?? "") + said.content;
      if (said.reasoning !== null) open.reasoning = (open.reasoning ?? "") + said.reasoning;
      open.calls.push(...said.calls);
    } else {
      close();
      messages.push(toChatMessage(given));
    }
  }
  close();
  return messages;
}

function toTool(given: unknown): ChatTool[] {
  const tool = fieldsOf(given);
  const inner = "function" in tool ? fieldsOf(tool["function"]) : tool;
  const name = textField(inner["name"]);
  if (name === null || name === "") return [];
  const parameters = inner["parameters"] ?? inner["input_schema"];
  const described = {
    ...(textField(inner["description"]) === null
      ? {}
      : { description: textField(inner["description"]) }),
    ...(parameters === undefined || parameters === null
      ? {}
      : { parameters: fieldsOf(parameters) }),
    ...(typeof inner["strict"] === "boolean" ? { strict: inner["strict"] } : {}),
  };
  return [{ type: "function", function: { name, ...described } }];
}
