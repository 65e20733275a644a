import { HoneError, messageText, type ChatMessage } from "@hone/core";
import type { RendererInfo } from "../ports/renderer.ts";
import type { Ask } from "./ask.ts";

/**
 * Refuses texts that cannot fit, before they are tokenised. It counts only what is certain: the part of a message that
 * no template leaves out, and the characters that no tokenizer drops (see `longestToken`).
 */
export function checkLength(
  texts: readonly string[],
  maxModelLen: number,
  { longestToken }: Pick<RendererInfo, "longestToken">,
  ask: Pick<Ask, "kind" | "param">,
): void {
  if (longestToken === null) return;
  const room = maxModelLen * longestToken;
  // This bound is cheap and mostly far below the limit, and then nothing has to be counted.
  if (texts.reduce((sum, text) => sum + text.length, 0) <= room) return;
  const least = Math.ceil(texts.reduce((sum, text) => sum + certain(text), 0) / longestToken);
  if (least <= maxModelLen) return;
  throw tooLong(
    `The prompt has more than ${least - 1} tokens, and the context holds ${maxModelLen}.`,
    ask,
  );
}

export function tooLong(message: string, { kind, param }: Pick<Ask, "kind" | "param">): HoneError {
  return new HoneError(`${message} Shorten the ${kind === "chat" ? "conversation" : "prompt"}.`, {
    code: "context_length_exceeded",
    param,
  });
}

/** The texts that every template shows. Some templates leave out tools and thoughts, so those do not count. */
export function shownTexts(messages: readonly ChatMessage[]): string[] {
  return messages.map((message) => {
    if (message.role !== "assistant") return messageText({ content: message.content });
    return messageText(message).split("</think>").at(-1) ?? "";
  });
}

function certain(text: string): number {
  let ascii = 0;
  let others = 0;
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    // Templates may cut off white space at the ends of a text.
    if (code > 0x205f ? code !== 0x3000 : code > 0xa0 && code < 0x1680) others += 1;
    else if (code > 0x20 && code < 0x7f) ascii += 1;
  }
  return ascii + others / 4;
}
