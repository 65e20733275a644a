import type { Turn } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";

/** Decodes ids with the renderer's own text for each id. */
export interface TokenTexts {
  /** What the ids spell, special tokens included. */
  text(ids: readonly number[]): Promise<string>;
  /** Ids that end an answer. */
  stopIds(): Promise<readonly number[]>;
}

/** How many ids at a prompt's end may open a thought: the tag and the white space behind it. */
const openingIds = 16;

/** The turn as it was sampled. It is decoded from the ledger's ids, not taken from what a parser made of them. */
export async function sampledTurn(
  { message, completion }: { message: number; completion: LedgerCompletion },
  texts: TokenTexts,
): Promise<Turn> {
  const { sampled, promptSuffix, finishReason: finish_reason } = completion;
  const stops = new Set(await texts.stopIds());
  const ids = [...sampled];
  if (stops.has(ids.at(-1) ?? -1)) ids.pop();
  const [opening, text] = await Promise.all([
    texts.text([...promptSuffix.subarray(-openingIds)]),
    texts.text(ids),
  ]);
  // A template may write the tag that opens the thought. The model then writes only the tag that closes it.
  const opened = completion.kind === "chat" ? (/<think>\s*$/.exec(opening)?.[0] ?? "") : "";
  return { id: completion.id, message, text: opened + text, finish_reason };
}
