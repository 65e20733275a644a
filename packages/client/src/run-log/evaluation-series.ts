import { fewestForInterval, type Interval } from "../statistics.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";

/** A held-out score: what is drawn and written of it. */
interface Score extends Partial<Interval> {
  step: number;
  mean: number;
}

/** The scores of one label over the run, in the order of their steps. */
export interface ScoreSeries {
  metric: string;
  label: string;
  /** Of a model elsewhere: the same at every step. */
  comparison: boolean;
  scores: Score[];
}

/** By metric and label; labels that differ only in their own step (`step-5`, `step-10`) are one series. */
export function evaluationSeries(evaluations: readonly EvaluationRecord[]): ScoreSeries[] {
  const all = new Map<string, ScoreSeries>();
  for (const { metric, score, scenarios, step, label: given, comparison = false } of evaluations) {
    if (!score) continue;
    const label = comparison ? given : withoutStep(given, step);
    const key = JSON.stringify([metric, label, comparison]);
    const series = all.get(key) ?? { metric, label, comparison, scores: [] };
    const interval = scenarios < fewestForInterval ? {} : { low: score.low, high: score.high };
    series.scores.push({ step, mean: score.mean, ...interval });
    all.set(key, series);
  }
  for (const { scores } of all.values()) scores.sort((a, b) => a.step - b.step);
  return [...all.values()];
}

function withoutStep(label: string, step: number): string {
  const [, name, number] = /^(.*?)[\s_@.-]*(\d+)$/.exec(label) ?? [];
  return name && Number(number) === step ? name : label;
}
