import { conversationKey, sameMessage, sameTools } from "../conversation/message-equality.ts";
import { isHeld, type Ask, type ChatAsk, type RecallingAsk } from "./ask.ts";
import { fullPrompt } from "../conversation/prompt.ts";
import type { IsAnswer } from "./retries.ts";

/** The key by which a failed try is remembered: every try of the same request has the same key. */
export function keyOf(ask: Ask | RecallingAsk): string {
  if ("recall" in ask) return ask.key;
  if (ask.kind === "text") return JSON.stringify(["text", ask.prompt]);
  const { messages, tools, format, mustCall, callable } = ask;
  const held = isHeld(ask) ? JSON.stringify([format, mustCall && callable]) : "";
  return conversationKey(messages, tools) + held;
}

/** A chat is repeated by the same messages and tools, held to the same shape. */
export function answersChat(ask: ChatAsk): IsAnswer {
  const { messages, tools } = ask;
  return (completion) =>
    completion.kind === "chat" &&
    completion.constrained === isHeld(ask) &&
    completion.messages.length === messages.length &&
    completion.messages.every((message, i) => sameMessage(messages[i]!, message)) &&
    sameTools(completion.tools, tools);
}

/** A plain prompt is repeated by the same ids. */
export function answersIds(ids: readonly number[]): IsAnswer {
  return (completion, all) => {
    if (completion.kind !== "text") return false;
    const before = fullPrompt(completion, all);
    return before.length === ids.length && before.every((id, i) => ids[i] === id);
  };
}
