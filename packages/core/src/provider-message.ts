import { messageSchema } from "./chat.ts";
import type { ChatMessage } from "./chat.ts";

/*
 * What a message says, in whichever provider's words. Nothing here throws, and nothing that a person would see is
 * left out: what is no text is named in its place.
 */

export interface SaidCall {
  id: string | null;
  name: string;
  /** JSON, as it was written where it was text. */
  arguments: string;
}

export interface Said {
  content: string | null;
  reasoning: string | null;
  refusal: string | null;
  calls: SaidCall[];
}

type Fields = Record<string, unknown>;

export function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : {};
}

export function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

export function textField(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

/** A message, or the delta of one. Empty texts are none. */
export function readSaid(given: unknown): Said {
  const message = fieldsOf(given);
  const said = readContent(message["content"]);
  const reasoning = [
    reasoningText(message["reasoning_content"]),
    reasoningText(message["reasoning"]),
    reasoningText(message["thinking"]),
    reasoningText(message["reasoning_text"]),
    said.reasoning,
  ].find((text) => text !== null && text !== "");
  const legacy = fieldsOf(message["function_call"]);
  const listed = listOf(message["tool_calls"]).map(readCall);
  return {
    content: said.content,
    // Details repeat what the plain field says, where there is one.
    reasoning: reasoning ?? reasoningText(message["reasoning_details"]),
    refusal: textField(message["refusal"]) ?? said.refusal,
    calls: [
      ...listed,
      ...("name" in legacy || "arguments" in legacy ? [readCall({ function: legacy })] : []),
      ...said.calls,
    ].filter(({ name, arguments: text, id }) => name !== "" || text !== "" || id !== null),
  };
}

/** A text, or a list of parts: OpenAI's, Mistral's, Anthropic's, those of the Responses API. */
export function readContent(content: unknown): Said {
  const said: Said = { content: null, reasoning: null, refusal: null, calls: [] };
  if (typeof content === "string") return { ...said, content };
  const parts = Array.isArray(content) ? (content as unknown[]) : content == null ? [] : [content];
  for (const given of parts) {
    const part = typeof given === "string" ? { type: "text", text: given } : fieldsOf(given);
    const type = textField(part["type"]) ?? "";
    if (/thinking|reasoning/.test(type)) {
      const thought = reasoningText(
        part["thinking"] ?? part["text"] ?? part["content"] ?? part["summary"] ?? part["data"],
      );
      said.reasoning = joined(said.reasoning, thought);
    } else if (type === "refusal") {
      said.refusal = joined(said.refusal, textField(part["refusal"]) ?? textField(part["text"]));
    } else if (type === "tool_use" || type === "tool_call" || type === "function_call") {
      said.calls.push(readCall(part));
    } else {
      said.content = joined(said.content, textField(part["text"]) ?? shown(part));
    }
  }
  return said;
}

/** A part that is no text, by its kind and by what it holds: two pictures are not the same picture. */
export function shown(part: Fields): string {
  const { type, ...rest } = part;
  const body = JSON.stringify(rest);
  return body === "{}" && type === undefined
    ? ""
    : `[${textField(type) ?? "part"} ${digest(body)}]`;
}

/** Short, and another for another content (FNV-1a, 2 × 32 bits, with the length). */
function digest(text: string): string {
  let a = 0x811c9dc5;
  let b = 0x01234567;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ (code + at), 0x01000193);
  }
  const hex = (value: number): string => (value >>> 0).toString(16).padStart(8, "0");
  return `${text.length} characters, ${hex(a)}${hex(b)}`;
}

function reasoningText(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    const texts = (value as unknown[]).map(reasoningText).filter((text) => text !== null);
    return texts.length > 0 ? texts.join("") : null;
  }
  const part = fieldsOf(value);
  const inner =
    part["text"] ?? part["summary"] ?? part["content"] ?? part["thinking"] ?? part["data"];
  return inner === undefined || inner === null ? null : reasoningText(inner);
}

function readCall(given: unknown): SaidCall {
  const call = fieldsOf(given);
  const called = "function" in call ? fieldsOf(call["function"]) : call;
  const written =
    called["arguments"] ?? called["input"] ?? called["parameters"] ?? call["arguments"];
  return {
    id: textField(call["id"]) ?? textField(call["call_id"]) ?? textField(call["tool_call_id"]),
    name: textField(called["name"]) ?? "",
    arguments:
      typeof written === "string" ? written : written == null ? "" : JSON.stringify(written),
  };
}

function joined(before: string | null, more: string | null): string | null {
  return more === null ? before : (before ?? "") + more;
}

/** As our own schema has a message: as it is where it fits, else with what it says. */
export function toChatMessage(given: unknown): ChatMessage {
  const known = messageSchema.safeParse(given);
  if (known.success && !hasForeignParts(given)) return known.data;
  const message = fieldsOf(given);
  const role = textField(message["role"]) ?? "user";
  const said = readSaid(message);
  const name = textField(message["name"]);
  const named = name === null ? {} : { name };
  if (role === "assistant" || role === "model") {
    return { ...assistantMessage(said), ...named };
  }
  const content = said.content ?? "";
  if (role === "tool" || role === "function" || role === "ipython") {
    const id =
      textField(message["tool_call_id"]) ?? textField(message["call_id"]) ?? name ?? "call";
    return { role: "tool", tool_call_id: id, content, ...named };
  }
  if (role === "system" || role === "developer") return { role, content, ...named };
  return { role: "user", content, ...named };
}

/** What was said as a message of our own. */
export function assistantMessage(said: Said): ChatMessage {
  return {
    role: "assistant",
    content: said.content,
    ...(said.reasoning === null ? {} : { reasoning_content: said.reasoning }),
    ...(said.refusal === null ? {} : { refusal: said.refusal }),
    ...(said.calls.length > 0 ? { tool_calls: said.calls.map(toToolCall) } : {}),
  };
}

/** Fields of an assistant's message that our schema keeps without reading them. */
function hasForeignParts(given: unknown): boolean {
  const message = fieldsOf(given);
  const foreign = ["function_call", "reasoning", "thinking", "reasoning_details", "reasoning_text"];
  return message["role"] === "assistant" && foreign.some((name) => message[name] != null);
}

function toToolCall(
  call: SaidCall,
  at: number,
): { id: string; type: "function"; function: { name: string; arguments: string } } {
  return {
    id: call.id ?? `call_${at + 1}`,
    type: "function",
    function: { name: call.name, arguments: call.arguments },
  };
}
