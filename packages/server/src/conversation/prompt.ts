import type { ChatMessage } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import { longestRepeated, type Asked } from "./continuation.ts";
import { sameMessage, sameTools } from "./message-equality.ts";

export type SplitReason = NonNullable<LedgerCompletion["splitReason"]>;

export interface Prompt {
  ids: readonly number[];
  /** The completion that it extends token for token. */
  parentId: string | null;
  /** How many of `ids` are the parent's prompt and answer. */
  parentLength: number;
  splitReason: SplitReason | null;
}

/**
 * The token ids of a request. Where the request continues an earlier completion of its rollout, they begin with the
 * ids of that completion's prompt and the ids that were sampled, because sampled text is never tokenised again.
 */
export async function makePrompt(
  renderer: Renderer,
  earlier: readonly LedgerCompletion[],
  { messages, tools, after }: Asked,
): Promise<Prompt> {
  const parent = longestRepeated(earlier, { messages, tools, after });
  if (!parent) {
    const ids = await renderer.render(messages, tools);
    if (after !== undefined) return root(ids, "edited_history");
    return root(ids, earlier.length === 0 ? null : whyApart(earlier, messages));
  }
  if (!sameTools(parent.tools, tools)) {
    return root(await renderer.render(messages, tools), "tools_changed");
  }
  const before = fullPrompt(parent, earlier);
  const added = messages.slice(parent.messages.length + 1);
  const parentLength = before.length + parent.sampled.length;
  const extended = (ids: readonly number[]): Prompt | null =>
    beginsWith(ids, before, parent.sampled)
      ? { ids, parentId: parent.id, parentLength, splitReason: null }
      : null;

  if (added.length > 0 && (await renderer.info()).bridges) {
    const bridged = await renderer.bridge(before, Array.from(parent.sampled), added, tools);
    const prompt = bridged.ids && extended(bridged.ids);
    if (prompt) return prompt;
  }
  // A renderer that cannot bridge may still have rendered the very ids that were sampled.
  const ids = await renderer.render(messages, tools);
  return extended(ids) ?? root(ids, "cannot_bridge");
}

function root(ids: readonly number[], splitReason: SplitReason | null): Prompt {
  return { ids, parentId: null, parentLength: 0, splitReason };
}

/**
 * Why a request continues no completion: its history was edited if it opens like an earlier one, or repeats an answer
 * that was sampled, as one does that was trimmed.
 */
function whyApart(
  earlier: readonly LedgerCompletion[],
  messages: readonly ChatMessage[],
): SplitReason {
  const firstAnswer = messages.findIndex((message) => message.role === "assistant");
  if (firstAnswer < 0) return "new_conversation";
  const opening = messages.slice(0, firstAnswer);
  const answers = messages.filter(({ role }) => role === "assistant");
  const shared = earlier.some(
    (completion) =>
      completion.kind === "chat" &&
      ((completion.messages.length >= opening.length &&
        opening.every((message, i) => sameMessage(message, completion.messages[i]!))) ||
        answers.some((message) => sameMessage(message, completion.answer))),
  );
  return shared ? "edited_history" : "new_conversation";
}

/** The ids that a completion was prompted with, put together from its ancestors. */
export function fullPrompt(
  completion: LedgerCompletion,
  all: readonly LedgerCompletion[],
): number[] {
  const parts: Int32Array[] = [completion.promptSuffix];
  for (let id = completion.parentId; id !== null;) {
    // An ancestor stands before its descendants, and mostly only a few places before.
    const ancestor = all.findLast((entry) => entry.id === id);
    if (!ancestor) throw new Error(`the ledger lacks completion ${id}, which another one extends`);
    parts.push(ancestor.sampled, ancestor.promptSuffix);
    id = ancestor.parentId;
  }
  // The list is long and is made at every turn. Plain loops cost a fraction of what iterators would.
  const ids: number[] = [];
  for (let at = parts.length - 1; at >= 0; at -= 1) {
    const part = parts[at]!;
    for (let i = 0; i < part.length; i += 1) ids.push(part[i]!);
  }
  return ids;
}

/** Whether the ids begin with a prompt and the ids that were sampled after it. */
export function beginsWith(
  ids: readonly number[],
  prompt: readonly number[],
  sampled: Int32Array,
): boolean {
  if (ids.length < prompt.length + sampled.length) return false;
  for (let i = 0; i < prompt.length; i += 1) if (ids[i] !== prompt[i]) return false;
  for (let i = 0; i < sampled.length; i += 1) {
    if (ids[prompt.length + i] !== sampled[i]) return false;
  }
  return true;
}
