import { parseModelRef } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { mean } from "../statistics.ts";

/** How many policies old what a step trains on is: 0 was sampled from the policy that is trained. */
export interface Staleness {
  mean: number;
  max: number;
}

/** Policies between the one that a trajectory was sampled from and `learnt`; null if Hone did not sample it. */
function stepsBehind({ policy }: Trajectory, learnt: number): number | null {
  const step = policy === null ? null : (parseModelRef(policy)?.step ?? null);
  return step === null ? null : Math.max(0, learnt - step);
}

/** Of all trajectories; null without any. */
export function stalenessOf(groups: readonly TrajectoryGroup[], learnt: number): Staleness | null {
  const ages = groups.flatMap(({ trajectories }) =>
    trajectories.flatMap((trajectory) => stepsBehind(trajectory, learnt) ?? []),
  );
  return ages.length === 0 ? null : { mean: mean(ages), max: Math.max(...ages) };
}

/** The trajectories that the server would mask as `stale`. */
export function staleOf(
  { trajectories }: TrajectoryGroup,
  { learnt, maxStaleness }: { learnt: number; maxStaleness: number },
): Trajectory[] {
  return trajectories.filter((trajectory) => (stepsBehind(trajectory, learnt) ?? 0) > maxStaleness);
}
