import type { PlainMessage } from "./conversation.ts";
import { cutMessage } from "./cut-message.ts";
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
  cut: Cut | null;
}

/** Whole messages, calls out of messages, and the characters of these and of texts. */
export interface Cut {
  messages: number;
  calls: number;
  characters: number;
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
    // Each with the line end that follows it.
    const sizes = texts.map((text) => countTokens(text) + 1);
    return { name, texts, sizes, size: sizes.reduce((sum, size) => sum + size, 0) };
  });
  const total = whole.reduce((sum, { size }) => sum + size, 0);
  if (total <= budget) return whole.map(({ name, texts }) => ({ name, lines: texts, cut: null }));
  const level = waterLevel(
    whole.map(({ size }) => size),
    budget,
  );
  const trimmed: TrimmedSection[] = [];
  for (const [index, { name, texts, sizes, size }] of whole.entries()) {
    const section = sections[index] as Section;
    const fitted =
      size <= level
        ? { name, lines: texts, cut: null }
        : trimSection(section, { texts, sizes }, level, countTokens);
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

/**
 * Cuts long messages in their middle, all down to the same size: the largest at which the section
 * fits. Where there are too many for that, messages from the middle are left out.
 */
function trimSection(
  { name, lines }: Section,
  { texts, sizes }: { texts: readonly string[]; sizes: readonly number[] },
  budget: number,
  countTokens: CountTokens,
): TrimmedSection | null {
  const room = budget - countTokens(omitted(lines.length, 10_000_000)) - 1;
  const perMessage = Math.max(waterLevel(sizes, room), leastOf(room)) - 1;
  let calls = 0;
  let characters = 0;
  const shortened = lines.map((line, index) => {
    const text = texts[index] as string;
    if ("fixed" in line || (sizes[index] as number) - 1 <= perMessage) return text;
    const cut = cutMessage(line.message, perMessage, countTokens);
    calls += cut.calls;
    characters += cut.characters;
    return cut.text;
  });
  const kept = endsThatFit(shortened, room, countTokens);
  if (!kept) return null;
  const left = lines.length - kept.head - kept.tail;
  const tail = shortened.slice(shortened.length - kept.tail);
  if (left === 0) return { name, lines: shortened, cut: { messages: 0, calls, characters } };
  const gone = texts.slice(kept.head, kept.head + left);
  const lost = gone.reduce((sum, text) => sum + text.length, 0);
  return {
    name,
    lines: [...shortened.slice(0, kept.head), omitted(left, lost), ...tail],
    cut: { messages: left, calls, characters: characters + lost },
  };
}

/** Below this a message says too little: fewer of them, rather than shorter ones. */
function leastOf(room: number): number {
  return Math.max(48, Math.min(Math.max(256, Math.floor(room / 16)), Math.floor(room / 4)));
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

function lineText(line: Line): string {
  return dataLine("fixed" in line ? line.fixed : line.message);
}
