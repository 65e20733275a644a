import { HoneError, type HoneErrorOptions, type TrajectoryGroup } from "@hone/core";

/** More rollouts failed than `maxExceptions` allows. `groups` hold what had succeeded. */
export class GatherError extends HoneError {
  /** Every group of the call with the trajectories that were finished, and the exceptions so far. */
  declare readonly groups: TrajectoryGroup[];

  constructor(message: string, options: HoneErrorOptions & { groups: TrajectoryGroup[] }) {
    super(message, options);
    // Node prints what is enumerable, and before the cause: pages of groups would hide the agent's own stack.
    Object.defineProperty(this, "groups", { value: options.groups });
  }
}
