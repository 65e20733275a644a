import type { SelectedRollout } from "./filter.ts";

/** What the rewards say where the worker did not run: its names, its formulas (std with n − 1). */
export function rewardMetrics(rollouts: readonly SelectedRollout[]): Record<string, number | null> {
  const rewarded = rollouts.flatMap(({ group, reward }) =>
    reward === null ? [] : [{ group, reward }],
  );
  const n = rewarded.length;
  if (n === 0) return {};
  const mean = rewarded.reduce((sum, { reward }) => sum + reward, 0) / n;
  const squares = rewarded.reduce((sum, { reward }) => sum + (reward - mean) ** 2, 0);
  const groups = new Map<number, Set<number>>();
  for (const { group, reward } of rewarded) {
    groups.set(group, (groups.get(group) ?? new Set()).add(reward));
  }
  const equal = [...groups.values()].filter((rewards) => rewards.size === 1);
  return {
    reward: mean,
    reward_std: n > 1 ? Math.sqrt(squares / (n - 1)) : null,
    frac_reward_zero_std: equal.length / groups.size,
  };
}
