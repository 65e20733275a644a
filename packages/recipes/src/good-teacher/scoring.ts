import { setMaxListeners } from "node:events";
import { HoneError } from "@hone/core";
import type { ChatMessage, Trajectory, TrajectoryGroup } from "@hone/core";
import type { ExaminedJudge } from "../doctor/judge.ts";
import type { Progress } from "./stage.ts";

/** Answers to one prompt, to be scored together. */
export interface ToScore {
  prompt: readonly ChatMessage[];
  /** What follows the prompt in each. */
  answers: readonly (readonly ChatMessage[])[];
}

export interface ScoringOptions {
  signal: AbortSignal;
  /** Items at the same time. @default 16 */
  concurrency?: number | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** So many failures with no success before them are a scorer that is down: it is not asked for the rest. */
const downAfter = 8;

/**
 * The scores of each item. An item to which the scorer does not apply has null. Where an item cannot be scored the
 * rest are still tried, what was scored is kept, and the error says how many are left; a scorer that answers nothing
 * at first is not asked for all.
 */
export async function scored(
  items: readonly ToScore[],
  scorer: ExaminedJudge,
  progress: Progress<number[] | null>,
  options: ScoringOptions,
): Promise<(number[] | null)[]> {
  const { concurrency = 16, onProgress } = options;
  // One that ends the stage ends the others: nothing is noted behind it.
  const ending = new AbortController();
  const signal = AbortSignal.any([options.signal, ending.signal]);
  // Each item that waits listens to it.
  setMaxListeners(0, signal);
  const failures: string[] = [];
  let succeeded = progress.done.size;
  let next = 0;
  const down = () => succeeded === 0 && failures.length >= downAfter;
  const work = async () => {
    while (!down()) {
      signal.throwIfAborted();
      const at = next;
      next += 1;
      const item = items[at];
      if (!item) return;
      if (progress.done.has(at)) continue;
      const group = groupOf(item, at);
      const { judgings, error } = await scorer.judge(group, { passes: 1, seed: at, signal });
      const scores = judgings[0]?.scores;
      if (!scores) {
        // Outputs that are all alike have nothing that a listwise judge could compare.
        if (error === null) await progress.keep([{ at, value: item.answers.map(() => 0) }]);
        else failures.push(error);
        continue;
      }
      await progress.keep([{ at, value: finite(scores, scorer.label) }]);
      succeeded += 1;
      onProgress?.(progress.done.size, items.length);
    }
  };
  const workers = Array.from({ length: concurrency }, () =>
    work().catch((error: unknown) => ending.abort(error)),
  );
  await Promise.all(workers);
  signal.throwIfAborted();
  if (failures.length > 0) {
    const left = items.length - progress.done.size;
    throw new HoneError(
      `${scorer.label} scored ${progress.done.size} of ${items.length} items, and ${left} are left: ${failures[0]} What was scored is kept. See to the scorer, and start the command again.`,
      { code: "judge_failed" },
    );
  }
  return items.map((_, at) => progress.done.get(at) ?? null);
}

function finite(scores: readonly (number | null)[], label: string): number[] | null {
  if (scores.includes(null)) return null;
  if (scores.every((score) => Number.isFinite(score))) return scores as number[];
  throw new HoneError(
    `${label} gave a score that is no finite number (${scores.join(", ")}). Nothing was made of it; see to the scorer, and start the command again.`,
    { code: "judge_failed" },
  );
}

/** A scorer that tells nothing apart teaches nothing: what comes after it would be trained on chance. */
export function requireApart(
  scores: readonly (readonly number[] | null)[],
  label: string,
  of: string,
): void {
  const known = scores.filter((one) => one !== null);
  if (known.some((one) => new Set(one).size > 1)) return;
  throw new HoneError(
    known.length === 0
      ? `${label} applies to none of the ${scores.length} ${of}, so there is nothing to learn from them.`
      : `${label} gives the answers to every one of the ${known.length} ${of} the same score, so there is nothing to learn from them. Look at what it is shown, with the judge doctor.`,
    { code: "judge_failed" },
  );
}

/** As rollouts would have left them; nobody knows a reward of them. */
function groupOf({ prompt, answers }: ToScore, at: number): TrajectoryGroup {
  return {
    ...{ id: `prompt-${at}`, scenario: { prompt: [...prompt] } },
    ...{ exceptions: [], metadata: {}, metrics: {}, logs: [] },
    trajectories: answers.map((answer): Trajectory => ({
      ...{ rolloutId: null, model: null, policy: null, tools: null, histories: [] },
      messages: [...prompt, ...answer],
      ...{ reward: null, metrics: {}, metadata: {}, logs: [] },
      usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
      ...{ startedAt: 0, durationMs: 0 },
    })),
  };
}
