import type { ChatMessage, ChatTool } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { sameCallIds, sameMessage, sameTools } from "./message-equality.ts";

/** A request: what it asks, and with which tools. */
export interface Asked {
  messages: readonly ChatMessage[];
  tools: readonly ChatTool[] | null;
  /** The completion that the request names. */
  after?: string | undefined;
}

/**
 * Whether a request repeats the messages of a completion and its answer: content and tool calls have to
 * agree, reasoning need not be repeated.
 */
function repeats({ messages }: Asked, earlier: LedgerCompletion): boolean {
  const answer = messages[earlier.messages.length];
  return (
    answer !== undefined &&
    sameMessage(answer, earlier.answer) &&
    earlier.messages.every((recorded, i) => sameMessage(messages[i]!, recorded))
  );
}

/**
 * The chat completion with the longest conversation that the request repeats. Of several with the same words
 * the one that the request names wins, then the one whose call ids are repeated, then one with the same tools, then
 * one that was delivered, then the latest.
 */
export function longestRepeated(
  earlier: readonly LedgerCompletion[],
  asked: Asked,
): LedgerCompletion | null {
  let best: LedgerCompletion | null = null;
  // Begins with the latest, because that is mostly the one, and shorter ones then need not be compared.
  for (let at = earlier.length - 1; at >= 0; at -= 1) {
    const completion = earlier[at];
    if (!completion || completion.kind === "text") continue;
    if (best && completion.messages.length < best.messages.length) continue;
    if (!repeats(asked, completion)) continue;
    if (!best || isBetter(asked, completion, best)) best = completion;
  }
  return best;
}

function isBetter(asked: Asked, a: LedgerCompletion, b: LedgerCompletion): boolean {
  const rankOfA = rank(asked, a);
  const rankOfB = rank(asked, b);
  const at = rankOfA.findIndex((value, i) => value !== rankOfB[i]);
  return at >= 0 && rankOfA[at]! > rankOfB[at]!;
}

function rank({ messages, tools, after }: Asked, completion: LedgerCompletion): number[] {
  const { length } = completion.messages;
  return [
    length,
    Number(completion.id === after),
    Number(sameCallIds(messages[length]!, completion.answer)),
    Number(sameTools(completion.tools, tools)),
    Number(completion.delivered),
    completion.seq,
  ];
}

/**
 * Ids of the completions that a later turn continues. A parent is continued token for token. Where the
 * renderer could not bridge, the messages decide, and at each turn of the history for one completion only:
 * of several choices with the same words, the agent went on with one.
 */
export function continuedIds(completions: readonly LedgerCompletion[]): Set<string> {
  const continued = new Set<string>();
  for (const later of completions) {
    if (later.parentId !== null) {
      continued.add(later.parentId);
      continue;
    }
    for (const { id } of repeatedTurns(later, completions)) continued.add(id);
  }
  return continued;
}

/** For each answer in a completion's history the earlier completion that it repeats, if there is one. */
export function repeatedTurns(
  later: LedgerCompletion,
  completions: readonly LedgerCompletion[],
): LedgerCompletion[] {
  // For plain prompts the ids alone decide.
  if (later.kind === "text") return [];
  const turns = new Map<number, LedgerCompletion>();
  for (const earlier of completions) {
    if (earlier.kind === "text") continue;
    if (earlier.seq >= later.seq || !repeats(later, earlier)) continue;
    const known = turns.get(earlier.messages.length);
    if (!known || isBetter(later, earlier, known)) turns.set(earlier.messages.length, earlier);
  }
  return [...turns.values()];
}
