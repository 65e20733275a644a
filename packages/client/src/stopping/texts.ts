import { messageText, type Trajectory } from "@hone/core";

/** What a rollout said last, with its calls. Null where it said nothing at all. */
export function lastAnswer({ messages }: Pick<Trajectory, "messages">): string | null {
  const last = messages.findLast(({ role }) => role === "assistant");
  if (last?.role !== "assistant") return null;
  const calls = last.tool_calls ?? [];
  return [
    messageText(last),
    ...calls.map(({ function: { name, arguments: given } }) => `${name}(${given})`),
  ]
    .join(" ")
    .trim();
}

/** What it said in each turn; calls and what tools gave back repeat themselves for good reasons. */
function saidTexts({ messages }: Pick<Trajectory, "messages">): string[] {
  return messages.flatMap((one) => (one.role === "assistant" ? messageText(one) : []));
}

/** Two answers that differ in case, spaces or marks at their end are one. */
export function sameAnswerKey(answer: string): string {
  return answer
    .toLowerCase()
    .replaceAll(/\s+/g, " ")
    .trim()
    .replace(/[.!?\s]+$/, "");
}

/** A word that stands so many times in a row is no sentence. */
const mostInARow = 4;
/** Shorter texts repeat words by chance. */
const fewestWords = 12;
const fewestCharacters = 60;

/**
 * Whether a rollout has stopped to write language: the same word over and over, the same phrases over and over, or
 * characters that no text has. Each turn is read by itself: a player says the same move many times. A rollout that
 * calls tools may say nothing; one that does neither is degenerate.
 */
export function isDegenerate(trajectory: Pick<Trajectory, "messages">): boolean {
  const said = saidTexts(trajectory).filter((text) => text.trim() !== "");
  if (said.length === 0) return (lastAnswer(trajectory) ?? "") === "";
  return said.some((text) => isGarbled(text) || isRepeated(text));
}

function isRepeated(text: string): boolean {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  let inARow = 1;
  for (let at = 1; at < words.length; at += 1) {
    // Digits in a row are a number or a board.
    inARow = words[at] === words[at - 1] && /\p{L}/u.test(words[at] ?? "") ? inARow + 1 : 1;
    if (inARow >= mostInARow) return true;
  }
  if (words.length >= fewestWords && repeatedShare(words, 3) > 0.5) return true;
  const letters = text.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, "");
  return (
    letters.length >= fewestCharacters &&
    words.length < fewestWords &&
    repeatedShare(Array.from(letters), 4) > 0.7
  );
}

/** Share of the runs of `size` that have stood in the text before. */
function repeatedShare(parts: readonly string[], size: number): number {
  const seen = new Set<string>();
  const all = parts.length - size + 1;
  for (let at = 0; at < all; at += 1) seen.add(parts.slice(at, at + size).join(" "));
  return all > 0 ? 1 - seen.size / all : 0;
}

function isGarbled(text: string): boolean {
  const odd = text.match(/[\uFFFD\p{Cc}\p{Co}\p{Cn}]/gu)?.filter((one) => !/\s/.test(one)) ?? [];
  return odd.length / text.length > 0.3;
}
