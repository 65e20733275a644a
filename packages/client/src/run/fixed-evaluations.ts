import { join } from "node:path";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { scoresByScenario } from "../evaluation/scores.ts";
import type { EvaluationRecord } from "../run-log/evaluation-record.ts";
import type { RunLog } from "../run-log/run-log.ts";
import { mean } from "../statistics.ts";
import type { Evaluated } from "../stopping/advise.ts";
import { readGroups } from "../training/group-files.ts";
import { winMetric } from "./held-out-judge.ts";

/** The name of the evaluation after so many steps. */
export const evaluationLabel = (step: number): string => `step-${step}`;

/** What the advisor reads of an evaluation. */
export function evaluatedOf(
  groups: readonly TrajectoryGroup[],
  { metric, prefers, step }: { metric: string; prefers: boolean; step: number },
): Evaluated {
  const trajectories = groups.flatMap((group) => group.trajectories);
  const scores = (name: string) =>
    new Map([...scoresByScenario(groups, name)].map(([key, { value }]) => [key, value]));
  const wins = scores(winMetric);
  const secondary = {
    length: meanOf(trajectories, ({ usage }) => usage.completionTokens),
    latency: meanOf(trajectories, ({ durationMs }) => durationMs),
    cost: meanOf(trajectories, ({ metrics }) => metrics["cost_usd"]),
  };
  return {
    step,
    scores: scores(metric),
    secondary: Object.fromEntries(
      Object.entries(secondary).filter(([, value]) => value !== undefined),
    ),
    // A baseline's answers that nobody could compare say nothing; the scores do not stand in for them.
    ...(prefers && { wins }),
  };
}

function meanOf(
  trajectories: readonly Trajectory[],
  read: (one: Trajectory) => number | undefined,
): number | undefined {
  const values = trajectories.flatMap((one) => read(one) ?? []);
  return values.length === 0 ? undefined : mean(values);
}

/**
 * The evaluations on the way that earlier starts of a run have made, by the steps in their names. Those of an earlier
 * reward (`after` are the steps that had trained when it was changed) say nothing of this one.
 */
export async function fixedEvaluations(
  log: RunLog,
  { metric, prefers, after }: { metric: string; prefers: boolean; after: number },
): Promise<Evaluated[]> {
  const newest = new Map<number, EvaluationRecord>();
  for (const record of log.records) {
    if (record.type !== "evaluation" || record.metric !== metric || record.relative) continue;
    const step = /^step-(\d+)$/.exec(record.label)?.[1];
    if (step !== undefined && Number(step) > after) newest.set(Number(step), record);
  }
  const steps = [...newest.keys()].toSorted((a, b) => a - b);
  return await Promise.all(
    steps.map(async (step) => {
      const file = newest.get(step)?.file ?? `eval-${evaluationLabel(step)}.jsonl`;
      const groups = await readGroups(join(log.folder, "trajectories", file));
      return evaluatedOf(groups, { metric, prefers, step });
    }),
  );
}
