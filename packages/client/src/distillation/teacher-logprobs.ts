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
import { requireGroups, requireSignal } from "../argument-kinds.ts";

/** By rollout, then by completion: the teacher's logprob of each sampled token. Plain data, so that it can be kept. */
export type TeacherLogprobs = Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;

export interface TeacherLogprobsOptions {
  /** Requests to the teacher at once. @default 8 */
  concurrency?: number | undefined;
  /** Limit of one request. @unit ms @default 120000 */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Asks another API how likely its model finds what the rollouts sampled: `POST /completions` with token ids and vLLM's
 * `prompt_logprobs`, once for each conversation.
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
  const { concurrency = 8, timeoutMs = 120_000, signal } = options;
  const limit = pLimit(concurrency);
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
      {
        signal,
      },
    );
    const byId = new Map(data.map((one) => [one.id, one]));
    const parents = new Set(data.map(({ parentId }) => parentId));
    const known: Record<string, number[]> = {};
    const leaves = data.filter((one) => !parents.has(one.id));
    await Promise.all(
      leaves.map((leaf) =>
        limit(async () => {
          const path = pathOf(leaf, byId);
          const told = await score(path.flatMap((one) => [...one.promptIds, ...one.sampledIds]));
          let at = 0;
          for (const one of path) {
            at += one.promptIds.length;
            const sampled = told.slice(at, at + one.sampledIds.length);
            at += one.sampledIds.length;
            if (sampled.length === 0) continue;
            sampled.forEach((token, i) => checkText(teacher.name, token, one.tokens?.[i]));
            known[one.id] = sampled.map(({ logprob }) => logprob);
          }
        }),
      ),
    );
    return known;
  }

  const rollouts = groups.flatMap(({ trajectories }) =>
    trajectories.flatMap(({ rolloutId }) => (rolloutId === null ? [] : [rolloutId])),
  );
  const found = await Promise.all(rollouts.map(async (id) => [id, await ofRollout(id)] as const));
  return Object.fromEntries(found);
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
