import { sameMessage } from "./message-equality.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

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
    sameMessage(answer, earlier.answer) &&
    earlier.messages.every((message, i) => {
      const repeated = later.messages[i];
      return repeated !== undefined && sameMessage(repeated, message);
    })
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
