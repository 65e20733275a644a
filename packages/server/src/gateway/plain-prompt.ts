import { HoneError, type ChatMessage } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import { beginsWith, fullPrompt, type Prompt } from "../conversation/prompt.ts";
import type { TokenTable } from "./token-table.ts";

/** The ids of a plain prompt: those given, or what the tokenizer makes of the text. */
export async function promptIds(
  renderer: Renderer,
  prompt: string | readonly number[],
): Promise<readonly number[]> {
  const ids = typeof prompt === "string" ? await renderer.encode(prompt) : prompt;
  const refuse = (message: string) =>
    new HoneError(`prompt: ${message}`, { code: "invalid_request", param: "prompt" });
  if (ids.length === 0) throw refuse("it has no tokens. Send at least one.");
  const { vocabSize } = await renderer.info();
  const foreign = ids.find((id) => id >= vocabSize);
  if (foreign === undefined) return ids;
  throw refuse(
    `token ids of this base are 0 to ${vocabSize - 1}, got ${foreign}. Encode it with the base's own tokenizer.`,
  );
}

export interface PlainPrompt {
  prompt: Prompt;
  parent: LedgerCompletion | null;
}

/**
 * What a plain prompt continues: the completion with the longest prompt and answer that its ids begin with.
 * Of choices with the same ids one that was delivered wins, then the latest.
 */
export function continuePlain(
  ids: readonly number[],
  earlier: readonly LedgerCompletion[],
): PlainPrompt {
  let best: { parent: LedgerCompletion; length: number } | null = null;
  let broken = false;
  for (const parent of earlier) {
    const before = fullPrompt(parent, earlier);
    const length = before.length + parent.sampled.length;
    if (beginsWith(ids, before, parent.sampled)) {
      const better =
        !best ||
        length > best.length ||
        (length === best.length && parent.delivered >= best.parent.delivered);
      if (better) best = { parent, length };
    } else if (ids.length > before.length && before.every((id, i) => ids[i] === id)) broken = true;
  }
  if (best) {
    const { parent, length } = best;
    return {
      prompt: { ids, parentId: parent.id, parentLength: length, splitReason: null },
      parent,
    };
  }
  // The text that repeats prompt and answer was tokenised anew, so its ids may differ from those that were sampled.
  const splitReason =
    earlier.length === 0
      ? null
      : broken
        ? ("edited_history" as const)
        : ("new_conversation" as const);
  return { prompt: { ids, parentId: null, parentLength: 0, splitReason }, parent: null };
}

/** The messages that stand for a plain prompt in the ledger (ports/ledger.ts). */
export async function plainMessages(
  tokens: TokenTable,
  given: string | readonly number[],
  { prompt, parent }: PlainPrompt,
): Promise<ChatMessage[]> {
  const text =
    parent === null && typeof given === "string"
      ? given
      : await tokens.text(prompt.ids.slice(prompt.parentLength));
  const before = parent ? [...parent.messages, parent.answer] : [];
  return text || before.length === 0 ? [...before, { role: "user", content: text }] : before;
}
