import { printableLine } from "@hone/core";
import { fewestForInterval } from "../statistics.ts";
import { type RunRecord, short, sparkline } from "./curves.ts";
import type { Bands } from "../training/curriculum.ts";
import { evaluationSeries, type ScoreSeries } from "./evaluation-series.ts";
import type { StepRecord } from "./step-record.ts";

/** The curves for a terminal. What has no data has no line. */
export function runLines(records: readonly RunRecord[]): string[] {
  const steps = records.filter((record) => record.type === "step").sort((a, b) => a.step - b.step);
  const evaluations = records.filter((record) => record.type === "evaluation");
  const lines = [
    ...stepCurves.flatMap(([name, read, note]) => {
      const known = steps.flatMap((step) => {
        const value = read(step);
        return typeof value === "number" && Number.isFinite(value) ? [{ step, value }] : [];
      });
      const newest = known.at(-1);
      if (!newest) return [];
      return [
        [name, sparkline(known.map(({ value }) => value)), note?.(newest.step) ?? ""] as const,
      ];
    }),
    ...evaluationSeries(evaluations).map(scoreLine),
  ];
  const width = Math.max(22, ...lines.map(([name]) => name.length));
  return lines.map(([name, curve, note]) => `${name.padEnd(width)} ${curve} ${note}`.trimEnd());
}

type StepCurve = [
  name: string,
  read: (step: StepRecord) => number | null | undefined,
  note?: (newest: StepRecord) => string,
];

const stepCurves: StepCurve[] = [
  ["reward", ({ reward }) => reward?.mean, rewardNote],
  ["groups with variance", ({ variance: { groups, of } }) => groups / of],
  ["scenarios drawn", ({ fill }) => fill?.drawn, ({ fill }) => `${fill?.wanted} wanted`],
  [
    "success of the drawn",
    ({ curriculum }) => curriculum?.success,
    ({ curriculum }) => (curriculum ? bandsNote(curriculum.all) : ""),
  ],
  [
    "most frequent answer",
    ({ answers, rollouts }) => (answers.top[0]?.count ?? Number.NaN) / rollouts,
    ({ answers }) => `${quoted(answers.top[0]?.answer ?? "")}, ${answers.distinct} different`,
  ],
  ["entropy", ({ training }) => training["entropy"]],
  ["sampler/trainer gap", ({ training }) => training["sampling/sampling_logp_difference/mean"]],
  ["tokens of a rollout", ({ tokens }) => tokens?.mean],
  ["tokens a second", ({ tokensPerSecond }) => tokensPerSecond],
  [
    "staleness",
    ({ overlap }) => overlap?.staleness?.mean,
    ({ overlap }) => `most ${overlap?.staleness?.max}`,
  ],
  [
    "seconds of waiting",
    ({ overlap }) => overlap && overlap.waitedForRollouts + overlap.waitedForTraining,
    ({ overlap }) =>
      `for rollouts ${short(overlap?.waitedForRollouts ?? 0)}, for training ${short(overlap?.waitedForTraining ?? 0)}`,
  ],
  [
    "seconds of a step",
    ({ seconds }) => (seconds["gather"] ?? Number.NaN) + (seconds["train"] ?? Number.NaN),
    ({ seconds }) =>
      `gather ${short(seconds["gather"] ?? 0)}, train ${short(seconds["train"] ?? 0)}`,
  ],
];

/** How the scenarios went so far. */
function bandsNote({ unseen, never, sometimes, always }: Bands): string {
  return `of all scenarios ${never} never, ${sometimes} sometimes, ${always} always, ${unseen} not yet`;
}

/** The interval is over groups: of a few there is none. */
function rewardNote({ reward, variance }: StepRecord): string {
  return reward && variance.of >= fewestForInterval ? interval(reward) : "";
}

function scoreLine({ metric, label, scores }: ScoreSeries): readonly [string, string, string] {
  const newest = scores.at(-1);
  const curve =
    scores.length > 1 ? sparkline(scores.map(({ mean }) => mean)) : short(newest?.mean ?? 0);
  return [`held out ${metric}: ${label}`, curve, newest ? interval(newest) : ""];
}

function interval({ low, high }: { low?: number | undefined; high?: number | undefined }): string {
  return low === undefined || high === undefined ? "" : `[${short(low)}, ${short(high)}]`;
}

/** In one line, and short. */
function quoted(answer: string): string {
  return printableLine(JSON.stringify(answer.length <= 30 ? answer : `${answer.slice(0, 29)}…`));
}
