import type { Trajectory } from "@hone/core";
import { fullPrompt } from "../conversation/prompt.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

type Splits = NonNullable<Trajectory["usage"]["splits"]>;

/**
 * What it costs that later turns of a rollout could not extend earlier ones. Another conversation is no such turn: it
 * has nothing to extend. Null where there are none.
 */
export function splitsOf(completions: readonly LedgerCompletion[]): Splits | null {
  const delivered = completions.filter((one) => one.delivered);
  const reasons: Splits["reasons"] = {};
  let again = 0;
  for (const one of delivered) {
    const { splitReason: reason } = one;
    if (reason === null || reason === "new_conversation") continue;
    reasons[reason] = (reasons[reason] ?? 0) + 1;
    again += readAgain(one, completions);
  }
  if (Object.keys(reasons).length === 0) return null;
  return { reasons, tokensAgain: again };
}

/**
 * Tokens of the prompt that say once more what was read before. What it shares with an earlier sequence from the first
 * token on is none: a step computes that once. Neither is what came after the last answer, whose tokens are estimated
 * by its share of the text.
 */
function readAgain(one: LedgerCompletion, completions: readonly LedgerCompletion[]): number {
  const { length } = one.promptSuffix;
  const before = completions.filter(({ seq }) => seq < one.seq);
  const shared = Math.max(0, ...before.map((other) => sharedLength(one, other, completions)));
  const last = one.messages.findLastIndex(({ role }) => role === "assistant");
  const sizeOf = (value: unknown): number => JSON.stringify(value).length;
  const added = sizeOf(one.messages.slice(last + 1)) / sizeOf([one.messages, one.tools]);
  return Math.max(0, length - shared - Math.ceil(length * added));
}

/** How many tokens the prompt has in common with the prompt of another completion and its answer. */
function sharedLength(
  { promptSuffix }: LedgerCompletion,
  other: LedgerCompletion,
  completions: readonly LedgerCompletion[],
): number {
  const ids = fullPrompt(other, completions);
  const at = (i: number): number | undefined => ids[i] ?? other.sampled[i - ids.length];
  let shared = 0;
  while (shared < promptSuffix.length && promptSuffix[shared] === at(shared)) shared += 1;
  return shared;
}
