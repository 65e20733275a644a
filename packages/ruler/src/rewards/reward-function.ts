import type { Trajectory, TrajectoryGroup } from "@hone/core";

export interface RewardContext {
  /** The group that the trajectory is in; `group.scenario` is what it was given. */
  group: TrajectoryGroup;
  /** Its place in the group. */
  index: number;
  signal?: AbortSignal | undefined;
}

/**
 * Says what a trajectory is worth. `null` means that the function does not apply, which is not the same as 0.
 */
export type RewardFunction = (
  trajectory: Trajectory,
  context: RewardContext,
) => number | null | Promise<number | null>;

/** Reads something from the trajectory or its group; null or undefined where there is none. */
export type Reader<T> = (trajectory: Trajectory, context: RewardContext) => T | null | undefined;

/** A function under the name that its metrics get. */
export function named(name: string, reward: RewardFunction): RewardFunction {
  return Object.defineProperty(reward, "name", { value: name });
}
