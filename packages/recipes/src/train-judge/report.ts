import { compare, evaluationTable, type TrajectoryGroup } from "@hone/client";
import type { JudgeMode } from "./judge-case.ts";
import { metricsOf } from "./judge-task.ts";
import { orderedGroups } from "./pairs.ts";

export type JudgeMethod = "grpo" | "sft" | "bradley-terry";

/** One figure before and after, with 95% intervals (bootstrap over held-out cases, a pair's two orders together). */
export interface JudgeFigure {
  before: { mean: number; low: number; high: number };
  after: { mean: number; low: number; high: number };
  /** after − before, each case against itself. */
  difference: { mean: number; low: number; high: number };
  /** Cases or, for pair_accuracy, conversations that have it. */
  of: number;
}

/** What training a judge has come to, whatever the method. It is also in `judge.json` of the folder. */
export interface JudgeTraining {
  mode: JudgeMode;
  method: JudgeMethod;
  /** The policy, `name@N`: `hone/name` is asked for judgements, or `rm:name` after Bradley-Terry. */
  policy: string;
  seed: number;
  cases: { train: number; heldOut: number; ties: number };
  /** By metric: judge/accuracy, judge/parse_rate and so on. */
  figures: Record<string, JudgeFigure>;
  /** What decides: judge/accuracy, or judge/pair_accuracy where a judge only orders. */
  metric: string;
  /** "learnt": the whole interval of the difference lies above 0; "worse": below; otherwise "unclear". */
  outcome: "learnt" | "unclear" | "worse";
  notes: string[];
  out: string;
}

/** Groups of one rollout each, of the same held-out cases. */
export function judgeFigures(
  mode: JudgeMode,
  before: readonly TrajectoryGroup[],
  after: readonly TrajectoryGroup[],
): Record<string, JudgeFigure> {
  const figures: Record<string, JudgeFigure> = {};
  const ordered = { before: orderedGroups(before), after: orderedGroups(after) };
  for (const metric of metricsOf[mode]) {
    const own = has(before, metric) || has(after, metric);
    const [from, to] = own ? [before, after] : [ordered.before, ordered.after];
    if (!has(from, metric) || !has(to, metric)) continue;
    const [first, last] = evaluationTable(
      [
        ["before", from],
        ["after", to],
      ],
      { metric },
    );
    if (!first || !last || last.scenarios < 2) continue;
    const { difference, low, high, pairs } = compare(from, to, { metric });
    figures[metric] = {
      before: { mean: first.mean, low: first.low, high: first.high },
      after: { mean: last.mean, low: last.low, high: last.high },
      difference: { mean: difference, low, high },
      of: pairs,
    };
  }
  return figures;
}

function has(groups: readonly TrajectoryGroup[], metric: string): boolean {
  return groups.some(({ trajectories }) =>
    trajectories.some(({ metrics }) => metrics[metric] !== undefined),
  );
}

export function outcomeOf(figure: JudgeFigure | undefined): JudgeTraining["outcome"] {
  if (!figure) return "unclear";
  const { low, high } = figure.difference;
  return low > 0 ? "learnt" : high < 0 ? "worse" : "unclear";
}

const shown = (value: number) => (Number.isFinite(value) ? value.toFixed(2) : "–");

/** The report for people. */
export function judgeTrainingText(report: JudgeTraining): string {
  const { mode, method, policy, cases, figures, outcome, metric, notes, out } = report;
  const rows = Object.entries(figures).map(([name, { before, after, difference, of }]) => {
    const range = (one: { mean: number; low: number; high: number }) =>
      `${shown(one.mean)} [${shown(one.low)}, ${shown(one.high)}]`;
    return `  ${name.padEnd(24)} ${range(before).padEnd(20)} ${range(after).padEnd(20)} ${range(difference).padEnd(22)} ${of}`;
  });
  const verdicts = {
    learnt: `${metric} rose by more than chance explains.`,
    unclear: `Whether ${metric} changed cannot be told from ${cases.heldOut} held-out cases.`,
    worse: `${metric} fell by more than chance explains.`,
  };
  return [
    `${policy}: a ${mode} judge, trained by ${method} on ${cases.train} cases, asked about ${cases.heldOut} held-out ones.`,
    `  ${"".padEnd(24)} ${"before".padEnd(20)} ${"after".padEnd(20)} ${"difference".padEnd(22)} of`,
    ...rows,
    verdicts[outcome],
    ...notes,
    `files: ${out}`,
  ].join("\n");
}
