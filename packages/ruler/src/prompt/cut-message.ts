import type { PlainMessage } from "./conversation.ts";
import { dataLine } from "./data-line.ts";

export interface ShortMessage {
  text: string;
  /** Tool calls that were left out. */
  calls: number;
  /** Characters that were left out, of texts and of those calls. */
  characters: number;
}

/** What a cut text keeps at least, so that what it was can be told. */
const leastKept = 40;

/**
 * A message of at most so many tokens: its calls from the middle of a list that is too long, its
 * texts cut in their middle, both by no more than they have to be. What was cut is said beside the
 * text, by a key: no text in a message can say it.
 */
export function cutMessage(
  message: PlainMessage,
  budget: number,
  countTokens: (text: string) => number,
): ShortMessage {
  const cutTo = (keep: number, calls: number): ShortMessage => {
    const short = shorten(message, keep, calls);
    return { ...short, text: dataLine(short.message) };
  };
  const fits = (short: ShortMessage): boolean => countTokens(short.text) <= budget;
  const all = message.tool_calls?.length ?? 0;
  const calls = largest(all, (n) => fits(cutTo(leastKept, n)));
  const longest = Math.max(...textsOf(message).map((text) => text.length));
  return cutTo(
    largest(longest, (n) => fits(cutTo(n, calls))),
    calls,
  );
}

/** The largest number that holds, to a hundredth, where smaller ones mostly hold too; 0 where none does. */
function largest(upTo: number, holds: (n: number) => boolean): number {
  if (holds(upTo)) return upTo;
  let low = 0;
  let high = upTo;
  while (high - low > Math.max(1, low / 100)) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function textsOf({ name, reasoning, content, refusal, tool_calls: calls }: PlainMessage): string[] {
  return [
    name ?? "",
    reasoning ?? "",
    content ?? "",
    refusal ?? "",
    ...(calls ?? []).flatMap((call) => [call.name, call.arguments]),
  ];
}

function shorten(
  message: PlainMessage,
  keep: number,
  keepCalls: number,
): { message: Record<string, unknown>; calls: number; characters: number } {
  let characters = 0;
  const cut = (text: string): unknown => {
    const half = Math.floor(keep / 2);
    const gone = text.length - 2 * half;
    // One that loses less than it takes to say so stays whole.
    if (gone <= leastKept) return text;
    characters += gone;
    return {
      begins: text.slice(0, half),
      left_out_characters: gone,
      ends: text.slice(text.length - half),
    };
  };
  const { name, reasoning, content, refusal, tool_calls: calls = [], ...rest } = message;
  const head = Math.floor(keepCalls / 2);
  const gone = calls.slice(head, calls.length - (keepCalls - head));
  const goneCharacters = gone.reduce((sum, call) => sum + JSON.stringify(call).length, 0);
  const shown = [...calls.slice(0, head), null, ...calls.slice(head + gone.length)];
  const list = shown.flatMap((call): unknown[] => {
    if (call) return [{ ...call, name: cut(call.name), arguments: cut(call.arguments) }];
    if (gone.length === 0) return [];
    return [{ left_out: { tool_calls: gone.length, characters: goneCharacters } }];
  });
  return {
    message: {
      ...rest,
      ...(name === undefined ? {} : { name: cut(name) }),
      ...(reasoning === undefined ? {} : { reasoning: cut(reasoning) }),
      ...(content === undefined ? {} : { content: cut(content) }),
      ...(refusal === undefined ? {} : { refusal: cut(refusal) }),
      ...(calls.length > 0 ? { tool_calls: list } : {}),
    },
    calls: gone.length,
    characters: characters + goneCharacters,
  };
}
