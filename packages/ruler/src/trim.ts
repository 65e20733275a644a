import type { PlainMessage } from "./conversation.ts";
import { dataLine } from "./data-line.ts";

/** A line of a section: a message, or something that is not cut (a heading of a conversation). */
export type Line = { message: PlainMessage } | { fixed: unknown };

export interface Section {
  name: string;
  lines: Line[];
}

export interface TrimmedSection {
  name: string;
  lines: string[];
  /** What was left out; null where all is there. */
  cut: { messages: number; characters: number } | null;
}

type CountTokens = (text: string) => number;

/**
 * Fits sections into a budget of tokens. Short sections are whole; what is left is shared evenly by
 * the long ones, so that a bloated attempt costs itself and not the others. Null where not even the
 * ends fit.
 */
export function trimSections(
  sections: readonly Section[],
  budget: number,
  countTokens: CountTokens,
): TrimmedSection[] | null {
  const whole = sections.map(({ name, lines }) => {
    const texts = lines.map(lineText);
    return { name, texts, size: sizeOf(texts, countTokens) };
  });
  const total = whole.reduce((sum, { size }) => sum + size, 0);
  if (total <= budget) return whole.map(({ name, texts }) => ({ name, lines: texts, cut: null }));
  const level = waterLevel(
    whole.map(({ size }) => size),
    budget,
  );
  const trimmed: TrimmedSection[] = [];
  for (const [index, { name, texts, size }] of whole.entries()) {
    const section = sections[index] as Section;
    const fitted =
      size <= level
        ? { name, lines: texts, cut: null }
        : trimSection(section, texts, level, countTokens);
    if (!fitted) return null;
    trimmed.push(fitted);
  }
  return trimmed;
}

/** The height up to which sizes may rise so that together they are the budget. */
function waterLevel(sizes: readonly number[], budget: number): number {
  const rising = [...sizes].sort((a, b) => a - b);
  let left = budget;
  for (const [index, size] of rising.entries()) {
    const share = left / (rising.length - index);
    if (size > share) return Math.floor(share);
    left -= size;
  }
  return Number.POSITIVE_INFINITY;
}

/** Cuts long messages in their middle, then leaves out messages from the middle. */
function trimSection(
  { name, lines }: Section,
  texts: readonly string[],
  budget: number,
  countTokens: CountTokens,
): TrimmedSection | null {
  const perMessage = Math.max(48, Math.floor(budget / 4));
  let characters = 0;
  const shortened = lines.map((line, index) => {
    const text = texts[index] as string;
    if ("fixed" in line || countTokens(text) <= perMessage) return text;
    const cut = cutMessage(line.message, perMessage, countTokens);
    characters += cut.characters;
    return cut.text;
  });
  const room = budget - countTokens(omitted(lines.length, 10_000_000)) - 1;
  const kept = endsThatFit(shortened, room, countTokens);
  if (!kept) return null;
  const left = lines.length - kept.head - kept.tail;
  const tail = shortened.slice(shortened.length - kept.tail);
  if (left === 0) return { name, lines: shortened, cut: { messages: 0, characters } };
  const gone = texts.slice(kept.head, kept.head + left);
  const lost = gone.reduce((sum, text) => sum + text.length, 0);
  return {
    name,
    lines: [...shortened.slice(0, kept.head), omitted(left, lost), ...tail],
    cut: { messages: left, characters: characters + lost },
  };
}

/** Takes from both ends in turn, the last first: how an attempt ended matters most. */
function endsThatFit(
  texts: readonly string[],
  room: number,
  countTokens: CountTokens,
): { head: number; tail: number } | null {
  let head = 0;
  let tail = 0;
  let left = room;
  while (head + tail < texts.length) {
    const fromTail = tail <= head;
    const text = (fromTail ? texts[texts.length - 1 - tail] : texts[head]) as string;
    left -= countTokens(text) + 1;
    if (left < 0) break;
    if (fromTail) tail += 1;
    else head += 1;
  }
  return tail > 0 ? { head, tail } : null;
}

function omitted(messages: number, characters: number): string {
  return dataLine({ left_out: { messages, characters } });
}

/** What was cut is said beside the text, by a key: no text in a message can say it. */
function cutMessage(
  message: PlainMessage,
  budget: number,
  countTokens: CountTokens,
): { text: string; characters: number } {
  const content = typeof message.content === "string" ? message.content : null;
  const parts: string[] = [
    ...(content === null ? [JSON.stringify(message.content ?? "")] : [content]),
    message.reasoning ?? "",
    ...(message.tool_calls ?? []).map((call) => call.arguments),
  ];
  const longest = Math.max(...parts.map((part) => part.length));
  // Halves what each text may keep until the message fits.
  for (let keep = Math.min(longest, budget * 4); ; keep = Math.floor(keep / 2)) {
    const short = shorten(message, keep);
    const text = dataLine(short.message);
    if (countTokens(text) <= budget || keep < 8) return { text, characters: short.characters };
  }
}

function shorten(
  message: PlainMessage,
  keep: number,
): { message: Record<string, unknown>; characters: number } {
  let characters = 0;
  const cut = (text: string): unknown => {
    if (text.length <= keep) return text;
    const half = Math.floor(keep / 2);
    const gone = text.length - 2 * half;
    characters += gone;
    return {
      begins: text.slice(0, half),
      left_out_characters: gone,
      ends: text.slice(text.length - half),
    };
  };
  const { reasoning, content, tool_calls: calls, ...rest } = message;
  const parts = typeof content === "string" ? content : content && JSON.stringify(content);
  return {
    message: {
      ...rest,
      ...(reasoning === undefined ? {} : { reasoning: cut(reasoning) }),
      ...(parts === undefined ? {} : { content: cut(parts) }),
      ...(calls ? { tool_calls: calls.map((c) => ({ ...c, arguments: cut(c.arguments) })) } : {}),
    },
    characters,
  };
}

function lineText(line: Line): string {
  return dataLine("fixed" in line ? line.fixed : line.message);
}

function sizeOf(texts: readonly string[], countTokens: CountTokens): number {
  return texts.reduce((sum, text) => sum + countTokens(text) + 1, 0);
}
