import { messageText, type ChatMessage, type ChatTool } from "@hone/core";

/**
 * Whether two messages say the same, whatever SDK wrote them down: null content is empty content is
 * joined text parts, arguments are compared as JSON, and an answer whose reasoning was left out is
 * still that answer.
 */
export function sameMessage(given: ChatMessage, recorded: ChatMessage): boolean {
  if (given === recorded) return true;
  if (keyOf(given) !== keyOf(recorded)) return false;
  const reasoning = reasoningOf(given);
  return reasoning === "" || reasoning === reasoningOf(recorded);
}

/** Whether both assistant messages name their calls by the same ids. */
export function sameCallIds(given: ChatMessage, recorded: ChatMessage): boolean {
  return callIds(given) === callIds(recorded);
}

export function sameTools(a: readonly ChatTool[] | null, b: readonly ChatTool[] | null): boolean {
  return a === b || toolsKey(a) === toolsKey(b);
}

/** A text that is equal for messages and tools that say the same. */
export function conversationKey(
  messages: readonly ChatMessage[],
  tools: readonly ChatTool[] | null,
): string {
  return JSON.stringify([messages.map(keyOf), toolsKey(tools)]);
}

// A rollout compares its whole history at every turn, so the key of each message is made once and kept.
const keys = new WeakMap<ChatMessage, string>();

function keyOf(message: ChatMessage): string {
  let key = keys.get(message);
  if (key === undefined) {
    key = makeKey(message);
    keys.set(message, key);
  }
  return key;
}

// Every turn brings its whole history anew, most of it nothing but a role and a text: those need no JSON. No
// role begins like JSON does, so that the two kinds of key are told apart.
function makeKey(message: ChatMessage): string {
  const content =
    message.role === "assistant" ? messageText(message) : messageText({ content: message.content });
  if (message.role === "assistant") {
    if (!message.tool_calls || message.tool_calls.length === 0) return `assistant:${content}`;
    const calls = message.tool_calls.map((call) => [
      call.function.name,
      argumentsKey(call.function.arguments),
    ]);
    return JSON.stringify(["assistant", content, calls]);
  }
  const role = message.role === "developer" ? "system" : message.role;
  return saysMore(message) ? canonicalJson({ ...message, role, content }) : `${role}:${content}`;
}

function saysMore(message: ChatMessage): boolean {
  for (const [name, value] of Object.entries(message)) {
    if (name !== "role" && name !== "content" && value !== null && value !== undefined) return true;
  }
  return false;
}

function reasoningOf(message: ChatMessage): string {
  if (message.role !== "assistant") return "";
  const reasoning = message.reasoning_content ?? message["reasoning"];
  return typeof reasoning === "string" ? reasoning : "";
}

function callIds(message: ChatMessage): string {
  if (message.role !== "assistant") return "";
  return JSON.stringify((message.tool_calls ?? []).map((call) => call.id));
}

function argumentsKey(text: string): string {
  try {
    return sortedJson(JSON.parse(text), false);
  } catch {
    // Not JSON, or nested too deeply to compare: then the text itself has to be the same.
    return `text:${text}`;
  }
}

function toolsKey(tools: readonly ChatTool[] | null): string {
  return canonicalJson(tools ?? []);
}

/** What SDKs write as null or leave out is the same in messages and tools. */
function canonicalJson(value: unknown): string {
  return sortedJson(value, true);
}

/** JSON with sorted keys: two writings of one value are one string. */
function sortedJson(value: unknown, dropNulls: boolean): string {
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return inner;
    const entries = Object.entries(inner).filter(([, v]) => !dropNulls || v !== null);
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
