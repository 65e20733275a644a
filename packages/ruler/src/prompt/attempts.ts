import { plainCandidate } from "./conversation.ts";
import type { Candidate, PlainConversation, PlainMessage, PlainTool } from "./conversation.ts";

/** One of the different things that members of a group did. */
export interface Attempt {
  /** Its whole content: equal for members that did the same. */
  content: string;
  /** The members that did it, by their place in the group. */
  members: number[];
  /** What it did after the messages that all share. */
  messages: PlainMessage[];
  /** Its tools where not all have the same. */
  tools: PlainTool[] | null;
  histories: PlainConversation[];
}

export interface AttemptSet {
  /** The longest run of messages that every attempt begins with. */
  task: PlainMessage[];
  /** The tools, where all have the same ones. */
  tools: PlainTool[] | null;
  toolsDiffer: boolean;
  attempts: Attempt[];
}

/** Members that did the same become one attempt; what all attempts begin with becomes the task. */
export function collectAttempts(candidates: readonly Candidate[]): AttemptSet {
  const byContent = new Map<string, Attempt>();
  for (const [member, candidate] of candidates.entries()) {
    const plain = plainCandidate(candidate);
    const content = JSON.stringify(plain);
    const same = byContent.get(content);
    if (same) same.members.push(member);
    else byContent.set(content, { content, members: [member], ...plain });
  }
  const attempts = [...byContent.values()];
  const first = attempts[0];
  if (!first) return { task: [], tools: null, toolsDiffer: false, attempts };
  const toolsOf = (attempt: Attempt): string => JSON.stringify(attempt.tools);
  const toolsDiffer = attempts.some((attempt) => toolsOf(attempt) !== toolsOf(first));
  const length = sharedLength(attempts.map((attempt) => attempt.messages));
  return {
    task: first.messages.slice(0, length),
    tools: toolsDiffer ? null : first.tools,
    toolsDiffer,
    attempts: attempts.map((attempt) => ({
      ...attempt,
      messages: attempt.messages.slice(length),
      tools: toolsDiffer ? attempt.tools : null,
    })),
  };
}

function sharedLength(conversations: readonly PlainMessage[][]): number {
  const first = (conversations[0] ?? []).map((message) => JSON.stringify(message));
  let length = first.length;
  for (const messages of conversations.slice(1)) {
    length = Math.min(length, messages.length);
    const differing = first.findIndex(
      (text, index) => index < length && text !== JSON.stringify(messages[index]),
    );
    if (differing >= 0) length = Math.min(length, differing);
  }
  return length;
}
