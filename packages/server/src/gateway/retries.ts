import { createHash } from "node:crypto";
import { continuedIds } from "../conversation/continuation.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

/** How many failed tries are remembered. A retry follows within a minute or so. */
const rememberedTries = 4096;

/**
 * Whether the SDK says that it sends the same request again. openai-node and openai-python both count
 * their tries in this header. A request that merely repeats another is a question that is asked twice.
 */
export function isRetry(header: string | undefined): boolean {
  return header !== undefined && /^\d{1,6}$/.test(header) && Number(header) > 0;
}

/** Whether a completion of a rollout answers the request that is repeated. */
export type IsAnswer = (completion: LedgerCompletion, all: readonly LedgerCompletion[]) => boolean;

/** Tells which answers a retry takes back. */
export interface Retries {
  /** Notes a try that ended in an error or a hang-up that we saw. It explains the retry that follows. */
  failed(rolloutId: string, key: string): void;
  /**
   * Ids of the answers to the try before: all choices of the latest request that asked the same
   * and that no later turn continues. We wrote them whole, but they never reached the agent, or it would
   * not ask again.
   */
  unreceived(
    rolloutId: string,
    key: string,
    isAnswer: IsAnswer,
    earlier: readonly LedgerCompletion[],
  ): string[];
}

/** `now` in milliseconds. */
export function createRetries(now: () => number = Date.now): Retries {
  const startedAt = now();
  const tries = new Map<string, number>();
  const keyOf = (rolloutId: string, key: string): string =>
    createHash("sha256").update(`${rolloutId}\n${key}`).digest("base64");

  return {
    failed(rolloutId, askKey) {
      const key = keyOf(rolloutId, askKey);
      const count = (tries.get(key) ?? 0) + 1;
      tries.delete(key);
      tries.set(key, count);
      const [oldest] = tries.keys();
      if (tries.size > rememberedTries && oldest !== undefined) tries.delete(oldest);
    },

    unreceived(rolloutId, askKey, isAnswer, earlier) {
      const key = keyOf(rolloutId, askKey);
      const count = tries.get(key) ?? 0;
      if (count > 0) {
        if (count === 1) tries.delete(key);
        else tries.set(key, count - 1);
        return [];
      }
      // Failures from before this server began are not known, so nothing of that time is taken back.
      const since = earlier.filter(({ createdAt }) => createdAt >= startedAt);
      return answersTo(isAnswer, earlier).filter((id) => since.some((one) => one.id === id));
    },
  };
}

function answersTo(isAnswer: IsAnswer, earlier: readonly LedgerCompletion[]): string[] {
  const continued = continuedIds(earlier);
  const same = earlier.filter(
    (completion) =>
      completion.delivered && isAnswer(completion, earlier) && !continued.has(completion.id),
  );
  const last = same.at(-1);
  if (!last) return [];
  // The choices of one request follow each other in the ledger.
  return same
    .filter(({ seq, choice }) => seq - choice === last.seq - last.choice)
    .map(({ id }) => id);
}
