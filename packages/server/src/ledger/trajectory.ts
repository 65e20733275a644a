import type { ChatMessage, ChatTool, Trajectory } from "@hone/core";
import { isConstrained } from "../step-data/filter.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { continuedIds, repeatedTurns } from "../conversation/continuation.ts";
import { splitsOf } from "./split-cost.ts";

interface Conversation {
  messages: ChatMessage[];
  tools: ChatTool[] | null;
  /** The messages that were sampled, in order. */
  turns: { message: number; completion: LedgerCompletion }[];
}

/** The conversations of a rollout that no later completion continues, the longest first. */
export function conversations(completions: readonly LedgerCompletion[]): Conversation[] {
  // The agent never saw an answer that was not delivered, so it is no part of the episode.
  const delivered = completions.filter((completion) => completion.delivered);
  const continued = continuedIds(delivered);
  return delivered
    .filter(({ id, choices, choice }) => !continued.has(id) && (choices === 1 || choice === 0))
    .filter(
      (last) => last.choices === 1 || !siblings(delivered, last).some((s) => continued.has(s.id)),
    )
    .map((last) => ({
      messages: [...last.messages, last.answer],
      tools: last.tools ? [...last.tools] : null,
      turns: turnsOf(last, delivered),
    }))
    .sort((a, b) => b.messages.length - a.messages.length);
}

/**
 * Along a chain of parents each completion extends the one before it token for token. The first of the chain may
 * have a history that was rendered anew; for that part the messages tell which completion an answer comes from.
 */
function turnsOf(
  last: LedgerCompletion,
  completions: readonly LedgerCompletion[],
): Conversation["turns"] {
  const chain: LedgerCompletion[] = [];
  for (let one: LedgerCompletion | undefined = last; one;) {
    chain.unshift(one);
    const { parentId }: LedgerCompletion = one;
    one = completions.find(({ id }) => id === parentId);
  }
  const [first] = chain;
  const before = first ? repeatedTurns(first, completions) : [];
  return [...before, ...chain]
    .map((completion) => ({ message: completion.messages.length, completion }))
    .sort((a, b) => a.message - b.message);
}

/** The other choices of the same request. */
function siblings(
  completions: readonly LedgerCompletion[],
  one: LedgerCompletion,
): LedgerCompletion[] {
  return completions.filter(
    (other) =>
      other.id !== one.id &&
      other.choices === one.choices &&
      Math.abs(other.seq - one.seq) < one.choices &&
      other.seq - other.choice === one.seq - one.choice,
  );
}

type Cause = NonNullable<Trajectory["usage"]["constrainedBy"]>[number];

function constrainedBy({ temperature, topP, constrained, tools }: LedgerCompletion): Cause[] {
  // The record knows that there was a grammar, and not of what. What it held may have been cut before it was a call.
  const held = tools === null ? "response_format" : "tool_choice";
  return [
    ...(temperature === 0 ? (["temperature"] as const) : []),
    ...(topP < 1 ? (["top_p"] as const) : []),
    ...(constrained ? ([held] as const) : []),
  ];
}

/** Tokens that went in and out. A token of a shared prefix counts for each request that carried it. */
export function usageOf(all: readonly LedgerCompletion[]): Trajectory["usage"] {
  const completions = all.filter(({ delivered }) => delivered);
  const total = new Map<string, number>();
  let [promptTokens, completionTokens, sequenceTokens] = [0, 0, 0];
  for (const completion of completions) {
    const before = completion.parentId === null ? 0 : (total.get(completion.parentId) ?? 0);
    const prompt = before + completion.promptSuffix.length;
    total.set(completion.id, prompt + completion.sampled.length);
    promptTokens += prompt;
    completionTokens += completion.sampled.length;
    sequenceTokens += completion.promptSuffix.length + completion.sampled.length;
  }
  const constrained = completions.filter(isConstrained);
  const splits = splitsOf(all);
  return {
    ...{ completions: completions.length, promptTokens, completionTokens, sequenceTokens },
    ...(constrained.length > 0 && {
      constrained: constrained.length,
      constrainedBy: [...new Set(constrained.flatMap(constrainedBy))].toSorted(),
    }),
    ...(splits && { splits }),
  };
}
