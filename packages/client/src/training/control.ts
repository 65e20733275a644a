import { mulberry32, shuffledIndices, wrongKind, type TrajectoryGroup } from "@hone/core";
import { requireGroups } from "../argument-kinds.ts";

/**
 * The control experiment: within each group the rewards change places, so that they say nothing about the
 * rollouts that have them. A run that still improves on these improves for another reason than its rewards.
 *
 * Deterministic in `seed` and the order of the groups; give each step a seed of its own. Metrics stay where
 * they are, and so does a rollout without a reward.
 */
export function shuffleRewards(
  groups: readonly TrajectoryGroup[],
  seed: number,
): TrajectoryGroup[] {
  requireGroups("shuffleRewards()", groups);
  if (!Number.isSafeInteger(seed)) {
    throw wrongKind("shuffleRewards()", "a whole number as seed", seed, "seed");
  }
  const random = mulberry32(seed);
  return groups.map((group) => {
    const rewarded = group.trajectories.filter(({ reward }) => reward !== null);
    const order = shuffledIndices(rewarded.length, random);
    const given = new Map(
      rewarded.map((trajectory, place) => [trajectory, rewarded[order[place] ?? 0]?.reward]),
    );
    return {
      ...group,
      trajectories: group.trajectories.map((trajectory) => ({
        ...trajectory,
        reward: given.get(trajectory) ?? null,
      })),
    };
  });
}
