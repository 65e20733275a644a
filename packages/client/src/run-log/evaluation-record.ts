import type { TrajectoryGroup } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { scoresByScenario } from "../scores.ts";
import { bootstrapInterval, type Interval, mean } from "../statistics.ts";

/** A held-out evaluation: a line of metrics.jsonl. */
export interface EvaluationRecord {
  type: "evaluation";
  label: string;
  /** The step after which it was made; 0 is before the first. */
  step: number;
  metric: string;
  scenarios: number;
  failed: number;
  /** With the 95% interval over scenarios; null where no scenario has the metric. */
  score: ({ mean: number } & Interval) | null;
}

export function evaluationRecord(given: {
  label: string;
  step: number;
  metric: string;
  groups: readonly TrajectoryGroup[];
}): EvaluationRecord {
  const { groups, ...rest } = given;
  const values = [...scoresByScenario(groups, given.metric).values()].map(({ value }) => value);
  return {
    type: "evaluation",
    ...rest,
    scenarios: values.length,
    failed: groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0),
    score:
      values.length === 0
        ? null
        : { mean: mean(values), ...bootstrapInterval(values, 10_000, mulberry32(0)) },
  };
}
