import { readFile } from "node:fs/promises";
import { rankCorrelation } from "../doctor/statistics.ts";
import type { Evaluation } from "./evaluate.ts";
import type { PolicyGain } from "./policy.ts";

/** A row of the paper's table. */
export interface TeacherRow {
  reward: string;
  onPolicyShare: number | null;
  variance: number;
  accuracy: { onPolicy: number; offPolicy: number; mean: number };
  combined: number;
  gain: number;
  low: number | null;
  high: number | null;
  /** Steps of the policy that trained, of how many; absent where all did. */
  trained?: { steps: number; of: number } | undefined;
}

/** How well each figure orders the rewards by what they gained: Spearman's rank correlation, null if it cannot be said. */
export interface TeacherOrder {
  variance: number | null;
  accuracy: number | null;
  onPolicyAccuracy: number | null;
  combined: number | null;
}

export async function readTeacherRow(
  reward: string,
  files: { evaluation: string; policy: string },
): Promise<TeacherRow> {
  const evaluation = JSON.parse(await readFile(files.evaluation, "utf8")) as Evaluation;
  const policy = JSON.parse(await readFile(files.policy, "utf8")) as PolicyGain;
  const onPolicy = evaluation.accuracy.onPolicy.value;
  const offPolicy = evaluation.accuracy.offPolicy.value;
  return {
    ...{ reward, onPolicyShare: evaluation.onPolicyShare, variance: evaluation.variance.value },
    accuracy: { onPolicy, offPolicy, mean: (onPolicy + offPolicy) / 2 },
    ...{ combined: evaluation.combined, gain: policy.gain, low: policy.low, high: policy.high },
    // Files of older versions do not say it.
    ...((policy.trained ?? policy.steps) < policy.steps && {
      trained: { steps: policy.trained, of: policy.steps },
    }),
  };
}

export function teacherOrder(rows: readonly TeacherRow[]): TeacherOrder {
  const gains = rows.map(({ gain }) => gain);
  const against = (value: (row: TeacherRow) => number) => rankCorrelation(rows.map(value), gains);
  return {
    variance: against(({ variance }) => variance),
    accuracy: against(({ accuracy }) => accuracy.mean),
    onPolicyAccuracy: against(({ accuracy }) => accuracy.onPolicy),
    combined: against(({ combined }) => combined),
  };
}

export function teacherTable(rows: readonly TeacherRow[]): string {
  const heads = [
    ...["reward", "on-policy share", "variance", "accuracy on", "off", "combined", "true gain"],
  ];
  const lines = rows
    .toSorted((a, b) => b.combined - a.combined)
    .map(({ reward, onPolicyShare, variance, accuracy, combined, gain, low, high }) => [
      ...[reward, onPolicyShare === null ? "" : `${Math.round(100 * onPolicyShare)}%`],
      ...[variance, accuracy.onPolicy, accuracy.offPolicy, combined].map((value) =>
        value.toFixed(3),
      ),
      `${signed(gain)}${low === null || high === null ? "" : ` [${signed(low)}, ${signed(high)}]`}`,
    ]);
  const widths = heads.map((head, at) =>
    Math.max(head.length, ...lines.map((line) => line[at]?.length ?? 0)),
  );
  const text = [heads, ...lines]
    .map((line) => line.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  "))
    .map((line) => line.trimEnd())
    .join("\n");
  const { variance, accuracy, onPolicyAccuracy, combined } = teacherOrder(rows);
  const said = (value: number | null) => (value === null ? "none" : value.toFixed(2));
  const short = rows.flatMap(({ reward, trained }) =>
    trained
      ? `\n${reward}: ${trained.steps} of ${trained.of} steps trained, as its scores told no answers apart any more.`
      : [],
  );
  return `${text}\n${short.join("")}\nRank correlation with the true gain: combined ${said(combined)}, accuracy ${said(accuracy)} (on-policy alone ${said(onPolicyAccuracy)}), variance ${said(variance)}.`;
}

const signed = (value: number): string => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
