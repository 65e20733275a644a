import { namedPart, readSaid } from "@hone/core";
import type { ChatMessage, ChatTool } from "@hone/core";

/** What of a trajectory a judge sees: nothing that a token id, a logprob or a key could hide in. */
export interface Candidate {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ChatTool[] | null;
  readonly histories?:
    | readonly {
        readonly messages: readonly ChatMessage[];
        readonly tools: readonly ChatTool[] | null;
      }[]
    | undefined;
}

/** A message reduced to what it says, its keys in one order, its call ids renumbered. */
export interface PlainMessage {
  role: string;
  name?: string;
  reasoning?: string;
  content?: string;
  refusal?: string;
  tool_calls?: { id: string; name: string; arguments: string }[];
  tool_call_id?: string;
}
export interface PlainConversation {
  messages: PlainMessage[];
  tools: PlainTool[] | null;
}
export type PlainTool = ChatTool["function"];

export interface PlainCandidate extends PlainConversation {
  histories: PlainConversation[];
}

export function plainCandidate(candidate: Candidate): PlainCandidate {
  return {
    ...plainConversation(candidate.messages, candidate.tools),
    histories: (candidate.histories ?? []).map(({ messages, tools }) =>
      plainConversation(messages, tools),
    ),
  };
}

function plainConversation(
  messages: readonly ChatMessage[],
  tools: readonly ChatTool[] | null,
): PlainConversation {
  // Call ids are random: numbered by first use, equal conversations are equal text.
  const callIds = new Map<string, string>();
  const renumbered = (id: string): string => {
    const known = callIds.get(id);
    if (known) return known;
    const name = `call_${callIds.size + 1}`;
    callIds.set(id, name);
    return name;
  };
  return {
    messages: messages.map((message) => plainMessage(message, renumbered)),
    tools: tools && tools.length > 0 ? tools.map((tool) => sortKeys(tool.function)) : null,
  };
}

/** All that a person would see, in whichever provider's words it stands; what is no text is named in its place. */
function plainMessage(message: ChatMessage, renumbered: (id: string) => string): PlainMessage {
  const plain: PlainMessage = { role: message.role };
  if (typeof message["name"] === "string") plain.name = message["name"];
  const { content, reasoning, refusal, calls } = readSaid(message);
  if (message.role === "assistant" && reasoning) plain.reasoning = reasoning;
  const said = [...(content === null ? [] : [content]), ...besideContent(message)];
  if (said.length > 0) plain.content = said.join("\n");
  if (refusal !== null && refusal !== "") plain.refusal = refusal;
  if (message.role === "assistant" && calls.length > 0) {
    plain.tool_calls = calls.map((call, at) => ({
      id: renumbered(call.id ?? `unnamed ${at}`),
      name: call.name,
      arguments: call.arguments,
    }));
  }
  if (message.role === "tool") plain.tool_call_id = renumbered(message.tool_call_id);
  return plain;
}

/** What some providers put into fields of its own: speech, pictures, files. */
function besideContent(message: ChatMessage): string[] {
  const fields = message as Readonly<Record<string, unknown>>;
  return ["audio", "images", "files", "attachments"].flatMap((type) => {
    const value = fields[type];
    if (value === null || value === undefined || (Array.isArray(value) && value.length === 0)) {
      return [];
    }
    const spoken = type === "audio" ? (value as { transcript?: unknown }).transcript : null;
    return [
      ...(typeof spoken === "string" && spoken !== "" ? [spoken] : []),
      // An id is random, and says nothing.
      namedPart({ type, value: withoutId(value) }),
    ];
  });
}

function withoutId(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const { id: _, expires_at: __, ...rest } = value as Record<string, unknown>;
  return rest;
}

/** Two tools whose keys stand in another order are the same tool. */
function sortKeys<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item) => sortKeys(item as unknown)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sortKeys(item as unknown)]),
  ) as T;
}
