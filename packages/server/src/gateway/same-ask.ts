import { conversationKey, sameMessage, sameTools } from "../conversation/message-equality.ts";
import type { Ask, ChatAsk } from "./ask.ts";
import { fullPrompt } from "../conversation/prompt.ts";
import type { IsAnswer } from "./retries.ts";

/** The key by which a failed try is remembered: every try of the same request has the same key. */
export function keyOf(ask: Ask): string {
  if (ask.kind === "text") return JSON.stringify(["text", ask.prompt]);
  const { messages, tools, format } = ask;
  return conversationKey(messages, tools) + (format ? JSON.stringify(format) : "");
}

/** A chat is repeated by the same messages and tools, held to the same shape. */
export function answersChat({ messages, tools, format }: ChatAsk): IsAnswer {
  return (completion) =>
    completion.kind === "chat" &&
    completion.constrained === (format !== null) &&
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
