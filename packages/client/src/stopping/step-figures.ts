import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { mean, standardDeviation } from "../statistics.ts";
import { scenarioKey } from "../training/scenarios.ts";
import { isDegenerate, lastAnswer, sameAnswerKey } from "./texts.ts";

/** The metric that a judge which never trains leaves in a rollout. */
export const heldOutMetric = "held_out_judge";

/** What alarms are read off: of one step's rollouts, before it trains. */
export interface StepFigures {
  /** Rewards compare the rollouts of a group: their level says nothing. */
  relative: boolean;
  /** Null without rewards. `top` is the share of the rollouts that have the greatest reward, `most`. */
  reward: { mean: number; low: number; most: number; top: number } | null;
  /** The most frequent last answer: its share of the rollouts, and the scenarios of the step. */
  same: { share: number; scenarios: number };
  /** Share of the rollouts whose text repeats itself, is garbled or empty. */
  degenerate: number;
  /** What the held-out judge gave: over groups. Null where it was not asked, or failed. */
  heldOut: { mean: number; standardError: number; most: number } | null;
}

export function stepFigures(groups: readonly TrajectoryGroup[]): StepFigures {
  const trajectories = groups.flatMap((group) => group.trajectories);
  const rewards = trajectories.flatMap(({ reward }) => reward ?? []);
  const most = Math.max(...rewards);
  const played = groups.filter((group) => group.trajectories.length > 0);
  const count = Math.max(1, trajectories.length);
  return {
    relative: trajectories.some(({ metrics }) => metrics["ruler_score"] !== undefined),
    reward:
      rewards.length === 0
        ? null
        : {
            ...{ mean: mean(rewards), low: Math.min(...rewards), most },
            top: rewards.filter((reward) => reward >= most - 1e-9).length / rewards.length,
          },
    same: {
      share: trajectories.filter(isSaidMost(trajectories)).length / count,
      scenarios: new Set(played.map(({ scenario }) => scenarioKey(scenario))).size,
    },
    degenerate: trajectories.filter(isDegenerate).length / count,
    heldOut: heldOutOf(groups),
  };
}

/** Whether a rollout ended with the answer that most of them ended with. */
export function isSaidMost(all: readonly Trajectory[]): (one: Trajectory) => boolean {
  const counts = new Map<string, number>();
  for (const trajectory of all) {
    const answer = lastAnswer(trajectory);
    if (answer === null) continue;
    const key = sameAnswerKey(answer);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const [top] = [...counts].sort(([, a], [, b]) => b - a);
  return (one) => {
    const answer = lastAnswer(one);
    return answer !== null && top !== undefined && sameAnswerKey(answer) === top[0];
  };
}

function heldOutOf(groups: readonly TrajectoryGroup[]): StepFigures["heldOut"] {
  const byGroup = groups
    .map(({ trajectories }) => trajectories.flatMap(({ metrics }) => metrics[heldOutMetric] ?? []))
    .filter((scores) => scores.length > 0);
  if (byGroup.length === 0) return null;
  // Rollouts of a group share their scenario: groups are what is independent.
  const centres = byGroup.map(mean);
  return {
    mean: mean(centres),
    standardError: (standardDeviation(centres) ?? 0) / Math.sqrt(centres.length),
    most: Math.max(...byGroup.flat()),
  };
}
