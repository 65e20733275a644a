import type { ChatMessage } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { canonicalSha256 } from "../store/canonical.ts";

/**
 * Whether the request of `later` repeats the messages and the answer of `earlier`: content and tool calls
 * have to agree, reasoning need not be repeated.
 */
export function continues(later: LedgerCompletion, earlier: LedgerCompletion): boolean {
  const before = earlier.messages.length;
  if (later.seq <= earlier.seq || later.messages.length <= before) return false;
  const answer = later.messages[before];
  return (
    answer !== undefined &&
    sameAnswer(answer, earlier.answer) &&
    earlier.messages.every((message, i) => sameMessage(message, later.messages[i]))
  );
}

/** Ids of the completions that a later turn continues. */
export function continuedIds(completions: readonly LedgerCompletion[]): Set<string> {
  const continued = new Set<string>();
  for (const later of completions) if (later.parentId !== null) continued.add(later.parentId);
  for (const earlier of completions) {
    // Token for token is proof enough; the messages decide only where the renderer could not bridge.
    if (continued.has(earlier.id)) continue;
    if (completions.some((later) => continues(later, earlier))) continued.add(earlier.id);
  }
  return continued;
}

function sameMessage(a: ChatMessage, b: ChatMessage | undefined): boolean {
  if (b === undefined) return false;
  if (a.role === "assistant") return sameAnswer(a, b);
  return JSON.stringify(a) === JSON.stringify(b);
}

function sameAnswer(a: ChatMessage, b: ChatMessage): boolean {
  if (a.role !== "assistant" || b.role !== "assistant") return false;
  const callsA = a.tool_calls ?? [];
  const callsB = b.tool_calls ?? [];
  return (
    textOf(a.content) === textOf(b.content) &&
    callsA.length === callsB.length &&
    callsA.every((call, i) => {
      const other = callsB[i];
      return (
        other !== undefined &&
        call.function.name === other.function.name &&
        sameJson(call.function.arguments, other.function.arguments)
      );
    })
  );
}

function textOf(content: Extract<ChatMessage, { role: "assistant" }>["content"]): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text).join("");
}

function sameJson(a: string, b: string): boolean {
  if (a === b) return true;
  try {
    return canonicalSha256(JSON.parse(a)) === canonicalSha256(JSON.parse(b));
  } catch {
    return false;
  }
}
