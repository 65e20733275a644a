import type { ChatMessage, ChatTool } from "@hone/core";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { bytesOf, copyOf } from "../store/blob.ts";
import { fromJson, toJson } from "../store/json.ts";
import type { Statement } from "../store/store.ts";

/**
 * A completion as a row. Messages and tools that its parent already has are not stored again, so that a long
 * episode costs only what is new in each turn.
 */
export interface CompletionRow {
  id: string;
  rollout_id: string;
  seq: number;
  kind: LedgerCompletion["kind"];
  parent_id: string | null;
  prompt_suffix: ArrayBuffer | Uint8Array;
  sampled: ArrayBuffer | Uint8Array;
  logprobs: ArrayBuffer | Uint8Array;
  policy: string;
  temperature: number;
  top_p: number;
  seed: number | null;
  constrained: number;
  finish_reason: LedgerCompletion["finishReason"];
  choice: number;
  choices: number;
  shared_messages: number;
  messages: string;
  tools: string | null;
  answer: string;
  delivered: number;
  split_reason: LedgerCompletion["splitReason"];
  created_at: number;
}

/** Stands for the tools of a completion whose parent had the same. */
const sameTools = '"same"';

export function insertCompletion(
  completion: LedgerCompletion,
  parent: LedgerCompletion | null,
  verb: "INSERT" | "INSERT OR REPLACE" = "INSERT",
): Statement {
  const shared = parent ? sharedMessages(parent.messages, completion.messages) : 0;
  const tools = toJson(completion.tools);
  return {
    sql: `${verb} INTO completions (id, rollout_id, seq, kind, parent_id, prompt_suffix, sampled, logprobs, policy,
            temperature, top_p, seed, finish_reason, choice, choices, shared_messages, messages, tools, answer,
            delivered, split_reason, created_at, constrained)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    args: [
      completion.id,
      completion.rolloutId,
      completion.seq,
      completion.kind,
      completion.parentId,
      bytesOf(completion.promptSuffix),
      bytesOf(completion.sampled),
      bytesOf(completion.logprobs),
      completion.policy,
      completion.temperature,
      completion.topP,
      completion.seed,
      completion.finishReason,
      completion.choice,
      completion.choices,
      shared,
      JSON.stringify(completion.messages.slice(shared)),
      parent && tools !== null && tools === toJson(parent.tools) ? sameTools : tools,
      JSON.stringify(completion.answer),
      completion.delivered ? 1 : 0,
      completion.splitReason,
      completion.createdAt,
      Number(completion.constrained),
    ],
  };
}

export function readCompletion(
  row: CompletionRow,
  parent: LedgerCompletion | null,
): LedgerCompletion {
  const messages = JSON.parse(row.messages) as ChatMessage[];
  return {
    id: row.id,
    rolloutId: row.rollout_id,
    seq: row.seq,
    kind: row.kind,
    parentId: row.parent_id,
    promptSuffix: new Int32Array(copyOf(row.prompt_suffix)),
    sampled: new Int32Array(copyOf(row.sampled)),
    logprobs: new Float32Array(copyOf(row.logprobs)),
    policy: row.policy,
    temperature: row.temperature,
    topP: row.top_p,
    seed: row.seed,
    constrained: row.constrained === 1,
    finishReason: row.finish_reason,
    choice: row.choice,
    choices: row.choices,
    messages: parent ? [...parent.messages.slice(0, row.shared_messages), ...messages] : messages,
    tools:
      row.tools === sameTools
        ? (parent?.tools ?? null)
        : (fromJson(row.tools) as ChatTool[] | null),
    answer: JSON.parse(row.answer) as ChatMessage,
    delivered: row.delivered === 1,
    splitReason: row.split_reason,
    createdAt: row.created_at,
  };
}

function sharedMessages(before: readonly ChatMessage[], now: readonly ChatMessage[]): number {
  const most = Math.min(before.length, now.length);
  let shared = 0;
  while (shared < most && isExactly(before[shared]!, now[shared]!)) shared++;
  return shared;
}

/** What is stored once must be read back exactly, field by field. That two messages say the same is not enough. */
function isExactly(a: ChatMessage, b: ChatMessage): boolean {
  if (isPlain(a) && isPlain(b)) return a.role === b.role && a.content === b.content;
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Whether a message is nothing but a role and a text, as most are. */
function isPlain(message: ChatMessage): boolean {
  return typeof message.content === "string" && Object.keys(message).length === 2;
}
