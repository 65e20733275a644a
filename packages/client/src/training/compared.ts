import { differsWithin, whyNotCompared, type DropReason, type TrajectoryGroup } from "@hone/core";

/** What a judge notes in a group that it could not score; null if it noted nothing. */
export function failedMark({ metadata }: TrajectoryGroup): "judge_failed" | "zero_variance" | null {
  const { failed } = metadata;
  return failed === "judge_failed" || failed === "zero_variance" ? failed : null;
}

/** Why the server will leave the group out of a step for its rewards; null if they can be compared. */
export function whyGroupNotCompared(group: TrajectoryGroup): DropReason | null {
  const rewards = group.trajectories.map(({ reward }) => reward);
  const differs = group.trajectories.some(({ reward, completions = {} }) =>
    differsWithin(reward, Object.values(completions)),
  );
  return whyNotCompared({ failed: failedMark(group), rewards, differsWithin: differs });
}
