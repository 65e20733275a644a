import type { ResolvedScoreRequest, RewardModelInfo, Scores } from "@hone/core";

/** The reward models beside the trainer (docs/worker-contract.md). */
export interface Scorer {
  list(): Promise<RewardModelInfo[]>;
  score(request: ResolvedScoreRequest, signal: AbortSignal): Promise<Scores>;
}
