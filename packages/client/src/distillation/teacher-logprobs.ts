import {
  completionListSchema,
  HoneError,
  refuseUnknownOptions,
  scoredPromptSchema,
  wrongKind,
} from "@hone/core";
import type { CompletionRecord, TrajectoryGroup } from "@hone/core";
import { Transport } from "@hone/transport";
import pLimit from "p-limit";
import { ComparisonModel } from "../rollouts/comparison-model.ts";
import { warn } from "../warn.ts";
import { requireGroups, requireSignal } from "../argument-kinds.ts";

/** By rollout, then by completion: the teacher's logprob of each sampled token. Plain data, so that it can be kept. */
export type TeacherLogprobs = Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;

export interface TeacherLogprobsOptions {
  /** Requests to the teacher at once, and rollouts that are read for them. @default 8 */
  concurrency?: number | undefined;
  /** Limit of one request. @unit ms @default 120000 */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Asks another API how likely its model finds what the rollouts sampled: `POST /completions` with token ids and vLLM's
 * `prompt_logprobs`, once for each conversation. Answers that are too long for its context are left out, with a warning.
 */
export async function teacherLogprobs(
  student: Transport,
  groups: readonly TrajectoryGroup[],
  teacher: ComparisonModel,
  options: TeacherLogprobsOptions,
): Promise<TeacherLogprobs> {
  const where = "teacherLogprobs()";
  requireGroups(where, groups);
  refuseUnknownOptions(where, options, ["concurrency", "timeoutMs", "signal"]);
  requireSignal(where, options);
  if (!(teacher instanceof ComparisonModel)) {
    throw wrongKind(where, "a ComparisonModel as the teacher", teacher, "teacher");
  }
  const { concurrency = 8, timeoutMs = 120_000 } = options;
  const limit = pLimit(concurrency);
  const reading = pLimit(concurrency);
  // After a failure nothing more is asked: the teacher may cost money.
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const tooLong = new Set<string>();
  const peer = new Transport({
    serverURL: teacher.baseURL,
    apiKey: teacher.apiKey,
    fetch: teacher.fetch,
    maxRetries: 2,
    timeoutMs,
  });

  async function score(ids: readonly number[]) {
    const body = { model: teacher.name, prompt: ids, max_tokens: 1, prompt_logprobs: 0 };
    const answer = await peer.json("POST", "/completions", scoredPromptSchema, { body, signal });
    const told = answer.choices[0]!.prompt_logprobs;
    return ids.map((id, at) => {
      const found = at === 0 ? { logprob: 0 } : told[at]?.[String(id)];
      if (found && told.length === ids.length) return found;
      throw unusable(
        teacher.name,
        "it does not tell prompt_logprobs of the ids that it was sent, as vLLM and Hone do",
      );
    });
  }

  async function ofRollout(id: string): Promise<Record<string, number[]>> {
    const { data } = await student.json(
      "GET",
      `/v1/rollouts/${id}/completions`,
      completionListSchema,
      { signal },
    );
    const byId = new Map(data.map((one) => [one.id, one]));
    const parents = new Set(data.map(({ parentId }) => parentId));
    const known: Record<string, number[]> = {};
    const leaves = data.filter((one) => !parents.has(one.id));
    await Promise.all(leaves.map((leaf) => limit(() => ofConversation(pathOf(leaf, byId), known))));
    return known;
  }

  async function ofConversation(
    path: readonly CompletionRecord[],
    known: Record<string, number[]>,
  ): Promise<void> {
    const last = path.at(-1);
    if (!last) return;
    let told: Awaited<ReturnType<typeof score>>;
    try {
      told = await score(path.flatMap((one) => [...one.promptIds, ...one.sampledIds]));
    } catch (error) {
      if (!isTooLong(error)) throw error;
      // It samples one token more, for which a conversation that fills its context has no room.
      tooLong.add(last.id);
      return await ofConversation(path.slice(0, -1), known);
    }
    let at = 0;
    for (const one of path) {
      at += one.promptIds.length;
      const sampled = told.slice(at, at + one.sampledIds.length);
      at += one.sampledIds.length;
      if (sampled.length === 0) continue;
      sampled.forEach((token, i) => checkText(teacher.name, token, one.tokens?.[i]));
      known[one.id] = sampled.map(({ logprob }) => logprob);
    }
  }

  const rollouts = groups.flatMap(({ trajectories }) =>
    trajectories.flatMap(({ rolloutId }) => (rolloutId === null ? [] : [rolloutId])),
  );
  try {
    const found = await Promise.all(
      rollouts.map((id) => reading(async () => [id, await ofRollout(id)] as const)),
    );
    if (tooLong.size > 0) {
      warn(
        `${where}: ${tooLong.size} answer(s) have no teacher: with one token more they are longer than the context of "${teacher.name}".`,
      );
    }
    return Object.fromEntries(found);
  } catch (error) {
    stop.abort(error);
    throw error;
  }
}

/** As Hone says it by a code, and vLLM in words. */
function isTooLong(error: unknown): boolean {
  if (!HoneError.isInstance(error)) return false;
  const { code, status, message } = error;
  return (
    code === "context_length_exceeded" ||
    (status === 400 && /context length|max_model_len/i.test(message))
  );
}

/** The completions that a conversation consists of, the first one first. */
function pathOf(
  leaf: CompletionRecord,
  byId: ReadonlyMap<string, CompletionRecord>,
): CompletionRecord[] {
  const path = [leaf];
  for (let at = leaf; at.parentId !== null;) {
    const parent = byId.get(at.parentId);
    if (!parent) break;
    path.unshift(parent);
    at = parent;
  }
  return path;
}

/** The same id has to mean the same text to both. A part of a character has no text that could be compared. */
function checkText(
  teacher: string,
  { decoded_token: theirs }: { decoded_token?: string | null | undefined },
  ours: string | undefined,
): void {
  if (!theirs || !ours || theirs.includes("\ufffd") || ours.includes("\ufffd")) return;
  // Tokenizers of one family may write a leading space in another way.
  if (theirs.trim() === ours.trim()) return;
  throw unusable(
    teacher,
    `it has another tokenizer: what is ${JSON.stringify(ours)} here is ${JSON.stringify(theirs)} to it`,
  );
}

function unusable(teacher: string, why: string): HoneError {
  return new HoneError(`The model "${teacher}" cannot be a teacher by its logprobs: ${why}.`, {
    code: "invalid_response",
    param: "teacher",
  });
}
