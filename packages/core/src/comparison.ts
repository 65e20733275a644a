import type { DropReason } from "./operation.ts";
import type { CompletionTraining } from "./trajectory.ts";

/** A group as far as it decides whether its rollouts can be compared. */
export interface Compared {
  /** Whoever should have scored the group could not: none of its rewards counts. */
  failed: "judge_failed" | "zero_variance" | null;
  /** Of each member; null where it has none. */
  rewards: readonly (number | null)[];
  /** Whether a completion of a member is compared by something else than the member's reward. */
  differsWithin: boolean;
}

/**
 * Why a group compares nothing, so that it trains nothing; null if it does. This is the one definition: the server
 * leaves such groups out of a step by it, and the client knows by it which ones to replace.
 */
export function whyNotCompared({
  failed,
  rewards,
  differsWithin: differs,
}: Compared): DropReason | null {
  if (failed) return failed;
  const given = rewards.filter((reward) => reward !== null);
  if (given.length === 0 && rewards.length > 0) return "no_reward";
  if (given.length < 2) return "group_too_small";
  return given.every((reward) => reward === given[0]) && !differs ? "zero_variance" : null;
}

/** Whether what is said of single completions of a rollout makes them differ from its reward. */
export function differsWithin(
  reward: number | null,
  completions: readonly CompletionTraining[],
): boolean {
  if (reward === null) return false;
  return completions.some(
    (of) =>
      (of.reward !== undefined && of.reward !== reward) ||
      (of.advantage !== undefined && of.advantage !== 0),
  );
}
