import { mulberry32, shuffledIndices, wrongKind, type TrajectoryGroup } from "@hone/core";
import { requireGroups } from "../argument-kinds.ts";

/**
 * For a control experiment: shuffles the rewards within each group, so that a reward says nothing about the rollout
 * that has it. If a run improves on these, the reason is not its rewards.
 *
 * Rewards and advantages of single completions are left out, because they would still say it.
 *
 * The result depends on `seed` and the order of the groups only; give each step a seed of its own. Metrics stay
 * where they are, and a rollout without a reward stays without one.
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
        ...(trajectory.completions && { completions: withoutRewards(trajectory.completions) }),
      })),
    };
  });
}

type Completions = NonNullable<TrajectoryGroup["trajectories"][number]["completions"]>;

function withoutRewards(completions: Completions): Completions {
  return Object.fromEntries(
    Object.entries(completions).map(([id, { trainable, weight }]) => [
      id,
      {
        ...(trainable === undefined ? {} : { trainable }),
        ...(weight === undefined ? {} : { weight }),
      },
    ]),
  );
}
