import type { ChatMessage, ChatTool } from "@hone/core";
import { continuedIds } from "../conversation/continuation.ts";
import { sameMessage, sameTools } from "../conversation/message-equality.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

/**
 * Whether the SDK says that it sends the same request again. openai-node and openai-python both count
 * their attempts in this header; a request that merely repeats another is a question asked twice.
 */
export function isRetry(header: string | undefined): boolean {
  return header !== undefined && /^\d{1,6}$/.test(header) && Number(header) > 0;
}

/**
 * The answers to the attempt before: all choices of the latest call with the same messages and tools that
 * no later turn continues. Written whole by us, they never reached the agent, or it would not ask again.
 */
export function unreceivedAnswers(
  earlier: readonly LedgerCompletion[],
  messages: readonly ChatMessage[],
  tools: readonly ChatTool[] | null,
): string[] {
  const continued = continuedIds(earlier);
  const same = earlier.filter(
    (completion) =>
      completion.delivered &&
      completion.messages.length === messages.length &&
      completion.messages.every((message, i) => sameMessage(messages[i]!, message)) &&
      sameTools(completion.tools, tools) &&
      !continued.has(completion.id),
  );
  const last = same.at(-1);
  if (!last) return [];
  // The choices of one call follow each other in the ledger.
  return same
    .filter(({ seq, choice }) => seq - choice === last.seq - last.choice)
    .map(({ id }) => id);
}
