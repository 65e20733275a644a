import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { scenarioKey } from "../training/scenarios.ts";
import { mean } from "../statistics.ts";

/** A scenario's score: the mean of its trajectories that have the metric. */
export interface ScenarioScore {
  scenario: unknown;
  value: number;
}

/**
 * Scores by scenario, those without a value left out. A scenario that was evaluated twice has two keys, in
 * the order of the groups, so that two evaluations of the same list pair.
 */
export function scoresByScenario(
  groups: readonly TrajectoryGroup[],
  metric: string,
): Map<string, ScenarioScore> {
  const seen = new Map<string, number>();
  const scores = new Map<string, ScenarioScore>();
  for (const group of groups) {
    const key = scenarioKey(group.scenario);
    const nth = seen.get(key) ?? 0;
    seen.set(key, nth + 1);
    const values = group.trajectories.flatMap((trajectory) => valueOf(trajectory, metric));
    if (values.length === 0) continue;
    scores.set(`${nth} ${key}`, { scenario: group.scenario, value: mean(values) });
  }
  return scores;
}

/** `reward`, or a metric by its name; nothing where there is none. */
export function valueOf(trajectory: Trajectory, metric: string): number[] {
  const value = metric === "reward" ? trajectory.reward : trajectory.metrics[metric];
  return value === null || value === undefined ? [] : [value];
}
