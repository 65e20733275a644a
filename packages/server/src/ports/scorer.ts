import type { ResolvedScoreRequest, RewardModelInfo, Scores } from "@hone/core";

/** What conversations and texts are worth to a reward model. */
export interface Scoring {
  list(): Promise<RewardModelInfo[]>;
  score(request: ResolvedScoreRequest, signal: AbortSignal): Promise<Scores>;
}

/** The reward models beside the trainer, and its policies with a head (docs/worker-contract.md). */
export interface Scorer extends Scoring {
  /** Of token ids, by the adapter and the head in a policy's folder. */
  scoreIds(
    folder: string,
    items: readonly (readonly number[])[],
    signal: AbortSignal,
  ): Promise<number[]>;
}
