import { HoneError, refuseUnknownOptions } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { requireGroups } from "../argument-kinds.ts";

export interface BestOfNOptions {
  /** How many of each group. @default 1 */
  n?: number | undefined;
  /** Trajectories with a lower reward are left out, the best one of their group too. @default none */
  minReward?: number | undefined;
}

/**
 * The best trajectories of each group, as examples for `model.sft`: rejection sampling from a run's own rollouts.
 * Of equal rewards the earlier trajectory wins. Those without a reward are left out.
 */
export function bestOfN(
  groups: readonly TrajectoryGroup[],
  options: BestOfNOptions = {},
): Trajectory[] {
  requireGroups("bestOfN()", groups);
  refuseUnknownOptions("bestOfN()", options, ["n", "minReward"]);
  const { n = 1, minReward = Number.NEGATIVE_INFINITY } = options;
  if (!Number.isSafeInteger(n) || n < 1) {
    throw new HoneError(`bestOfN(): n is a whole number of at least 1, not ${n}.`, {
      code: "invalid_config",
      param: "n",
    });
  }
  if (typeof minReward !== "number" || Number.isNaN(minReward)) {
    throw new HoneError(`bestOfN(): minReward is a number, not ${String(minReward)}.`, {
      code: "invalid_config",
      param: "minReward",
    });
  }
  return groups.flatMap(({ trajectories }) =>
    trajectories
      .filter(({ reward }) => reward !== null && reward >= minReward)
      .sort((a, b) => (b.reward ?? 0) - (a.reward ?? 0))
      .slice(0, n),
  );
}
