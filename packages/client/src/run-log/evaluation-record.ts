import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { scoresByScenario } from "../evaluation/scores.ts";
import { bootstrapInterval, type Interval, mean } from "../statistics.ts";

/** A held-out evaluation: a line of metrics.jsonl. */
export interface EvaluationRecord {
  type: "evaluation";
  label: string;
  /** The step after which it was made; 0 is before the first, and whenever it was the base that played. */
  step: number;
  metric: string;
  scenarios: number;
  failed: number;
  /** With the 95% interval over scenarios; null where no scenario has the metric. */
  score: ({ mean: number } & Interval) | null;
  /** A model elsewhere played: its score stands beside the run's, and no step moves it. */
  comparison?: true | undefined;
  /** The score comes from comparing rollouts of one group: it says nothing about the policy's level. */
  relative?: true | undefined;
  /** Its trajectories, in the folder `trajectories`. Records of older versions have none: `eval-<label>.jsonl`. */
  file?: string | undefined;
}

/** An evaluation of a label after a step has a record for each of its metrics, and one file. */
type Evaluated = Pick<EvaluationRecord, "label" | "step" | "comparison">;

/** Made again, it takes the place of the earlier one. */
export function isSameEvaluation(a: Evaluated, b: Evaluated): boolean {
  return (
    a.label === b.label && (a.step === b.step || (a.comparison === true && b.comparison === true))
  );
}

/** What was evaluated, and when: `newest` is the last step that was written down. */
export function evaluated(
  label: string,
  groups: readonly TrajectoryGroup[],
  newest: number,
): Evaluated {
  const played = groups.flatMap(({ trajectories }) => trajectories);
  const all = (holds: (trajectory: Trajectory) => boolean) =>
    played.length > 0 && played.every(holds);
  return {
    label,
    step: all(({ policy }) => policy?.endsWith("@0") ?? false) ? 0 : newest,
    ...(all(({ rolloutId }) => rolloutId === null) ? { comparison: true } : {}),
  };
}

/** The first evaluation of a label has `eval-<label>.jsonl`, one after a later step names the step too. */
export function evaluationFile(given: Evaluated, records: readonly EvaluationRecord[]): string {
  const same = records.find((record) => isSameEvaluation(record, given));
  if (same) return fileOf(same);
  // Without case: on some disks "Base" and "base" are one file.
  const taken = new Set(records.map((record) => fileOf(record).toLowerCase()));
  const name = `eval-${fileName(given.label)}`;
  const withStep = `${name}-step-${String(given.step).padStart(4, "0")}`;
  for (let n = 0; ; n += 1) {
    const file = `${n === 0 ? name : n === 1 ? withStep : `${withStep}-${n}`}.jsonl`;
    if (!taken.has(file.toLowerCase())) return file;
  }
}

function fileOf({ label, file }: EvaluationRecord): string {
  return file ?? `eval-${fileName(label)}.jsonl`;
}

/** A label is the user's: it must not lead out of the folder. */
function fileName(label: string): string {
  return label.replaceAll(/[^\w.@-]+/g, "-").replace(/^\.+/, "") || "unnamed";
}

export function evaluationRecord(
  given: Evaluated & { metric: string; file: string },
  groups: readonly TrajectoryGroup[],
): EvaluationRecord {
  const values = [...scoresByScenario(groups, given.metric).values()].map(({ value }) => value);
  return {
    type: "evaluation",
    ...given,
    ...(isRelative(given.metric, groups) ? { relative: true } : {}),
    scenarios: values.length,
    failed: groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0),
    score:
      values.length === 0
        ? null
        : { mean: mean(values), ...bootstrapInterval(values, 10_000, mulberry32(0)) },
  };
}

/** RULER's scores, and a reward that a judge of groups has given. */
function isRelative(metric: string, groups: readonly TrajectoryGroup[]): boolean {
  if (metric === "ruler_score") return true;
  return (
    metric === "reward" &&
    groups.some(({ trajectories }) =>
      trajectories.some(({ metrics }) => metrics["ruler_score"] !== undefined),
    )
  );
}
