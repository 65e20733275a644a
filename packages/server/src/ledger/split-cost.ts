import { messageText, type ChatMessage, type Trajectory } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { createKnownSequences } from "./known-sequences.ts";

type Splits = NonNullable<Trajectory["usage"]["splits"]>;

/**
 * What it costs that later turns of a rollout could not extend earlier ones. Another conversation is no such turn: it
 * has nothing to extend. Null where there are none.
 */
export function splitsOf(completions: readonly LedgerCompletion[]): Splits | null {
  if (!completions.some(isSplit)) return null;
  const known = createKnownSequences();
  const reasons: Splits["reasons"] = {};
  let again = 0;
  for (const one of completions) {
    const shared = known.add(one);
    if (!isSplit(one)) continue;
    reasons[one.splitReason] = (reasons[one.splitReason] ?? 0) + 1;
    again += readAgain(one, shared);
  }
  return { reasons, tokensAgain: again };
}

type Split = LedgerCompletion & { splitReason: keyof Splits["reasons"] };

function isSplit(one: LedgerCompletion): one is Split {
  return one.delivered && one.splitReason !== null && one.splitReason !== "new_conversation";
}

/**
 * Tokens of the prompt that say once more what was read before. What it shares with an earlier sequence from the first
 * token on is none: a step computes that once. Neither is what came after the last answer, whose tokens are estimated
 * by its share of the text.
 */
function readAgain({ promptSuffix, messages, tools }: LedgerCompletion, shared: number): number {
  const { length } = promptSuffix;
  const last = messages.findLastIndex(({ role }) => role === "assistant");
  const added = sizeOf(messages.slice(last + 1));
  const share = added / (added + sizeOf(messages.slice(0, last + 1)) + sizeOfTools(tools));
  return Math.max(0, length - shared - Math.ceil(length * share));
}

/** About what the chat template writes around a message. */
const frame = 20;

function sizeOf(messages: readonly ChatMessage[]): number {
  let size = 0;
  for (const message of messages) {
    size += frame + messageText({ content: message.content ?? "" }).length;
    if (message.role !== "assistant") continue;
    size += message.reasoning_content?.length ?? 0;
    for (const { function: called } of message.tool_calls ?? []) {
      size += frame + called.name.length + called.arguments.length;
    }
  }
  return size;
}

const toolSizes = new WeakMap<object, number>();

function sizeOfTools(tools: LedgerCompletion["tools"]): number {
  if (tools === null) return 0;
  const size = toolSizes.get(tools) ?? JSON.stringify(tools).length;
  toolSizes.set(tools, size);
  return size;
}
