import { join } from "node:path";
import type { EvaluationRow, StepRecord } from "@hone/client";
import type { RunListener, RunSummary } from "./run.ts";

/** A line for each thing that happened. */
export function createReporter(metric: string, write: (line: string) => void): RunListener {
  return {
    began: (evaluation, scenarios) => write(`${evaluation}: ${scenarios} held-out scenarios …`),
    evaluated: (evaluation, score, seconds) =>
      write(`${evaluation}: ${metric} ${score.toFixed(2)} (${seconds.toFixed(0)} s)`),
    stepEnded(record, steps) {
      write(stepLine(record, steps, metric));
      for (const { message } of record.warnings) write(`  ! ${message}`);
    },
  };
}

export function stepLine(record: StepRecord, steps: number, metric: string): string {
  const { reward, variance, seconds, training } = record;
  const gap = training["sampling/sampling_logp_difference/mean"];
  const score = record.metrics[metric];
  const parts = [
    `step ${record.step}/${steps}`,
    reward ? `reward ${reward.mean.toFixed(2)}` : "no reward",
    ...(score === undefined ? [] : [`${metric} ${score.toFixed(2)}`]),
    `${variance.groups} of ${variance.of} groups differ`,
    `${record.answers.distinct} answers`,
    `${record.tokensPerSecond.toFixed(0)} tokens/s`,
    `played ${(seconds["gather"] ?? 0).toFixed(1)} s`,
    `trained ${(seconds["train"] ?? 0).toFixed(1)} s`,
    ...(typeof gap === "number" ? [`sampler/trainer ${gap.toFixed(4)}`] : []),
    record.policy,
  ];
  if (record.failed > 0) parts.push(`${record.failed} rollouts failed`);
  if (!record.trained) {
    const reasons = Object.entries(record.reasons).map(([reason, n]) => `${n} ${reason}`);
    parts.push(`trained nothing: ${reasons.join(", ")}`);
  }
  return parts.join(" | ");
}

/** `serverData` is the server's data folder, null where it is not known. */
export function summaryText(summary: RunSummary, serverData: string | null): string {
  const { adapter, metric, table, starts } = summary;
  return [
    "",
    `"${metric}" on ${countText(summary)}, by the base and by ${summary.policy}`,
    "(95% intervals over scenarios; the difference is paired):",
    ...tableLines(table),
    ...failedLines(summary.failed),
    "",
    ...verdictLines(summary),
    "",
    ...summary.curves,
    "",
    `Wall time     ${durationText(summary.seconds)}${starts > 1 ? ` over ${starts} starts` : ""}, of which ${durationText(summary.trainingSeconds)} for the steps`,
    `Curves        ${summary.out}/curves.svg`,
    `Metrics       ${summary.out}/metrics.jsonl`,
    `Trajectories  ${summary.out}/trajectories/*.jsonl`,
    ...(adapter === null
      ? []
      : [
          `Adapter       ${serverData === null ? adapter : join(serverData, adapter)} (PEFT format)`,
        ]),
  ].join("\n");
}

/** Only scenarios that both answered can be compared. */
function countText({ verdict: { pairs }, heldOut }: RunSummary): string {
  return pairs === heldOut
    ? `${pairs} held-out scenarios`
    : `${pairs} of ${heldOut} held-out scenarios (those that did not fail)`;
}

function failedLines(failed: RunSummary["failed"]): string[] {
  const parts = Object.entries(failed).map(([name, count]) => `${name} ${count}`);
  return parts.length > 0 ? [`  Failed, and counted for nobody: ${parts.join(", ")}`] : [];
}

function verdictLines({ verdict, outcome, worse, below }: RunSummary): string[] {
  const difference = interval(verdict.difference, verdict.low, verdict.high);
  const change = `${verdict.before.toFixed(2)} → ${verdict.after.toFixed(2)}, difference ${difference}`;
  const outcomes: Record<RunSummary["outcome"], string> = {
    learnt: `It has learnt: ${change}; the whole interval lies above 0.`,
    "slice-worse": `It has learnt in all but not everywhere: ${change}. A part got worse by more than chance explains, so it does not pass.`,
    worse: `It got worse: ${change}; the whole interval lies below 0. Try a lower learning rate (--lr).`,
    unclear: `It has not shown that it learnt: the interval of the difference, ${difference}, is not above 0. Try more steps (--steps) or another learning rate (--lr).`,
  };
  return [
    outcomes[outcome],
    ...worse.map((row) => `Worse than the base: ${rowText(row)}`),
    ...below.map((row) => `Below the base, as chance may explain: ${rowText(row)}`),
  ];
}

function rowText({ slice, name, ...row }: EvaluationRow): string {
  const { difference, differenceLow, differenceHigh } = row;
  return `${slice} (${name}), ${interval(difference ?? 0, differenceLow ?? 0, differenceHigh ?? 0)}.`;
}

/** Rounded before it is split: 119.7 s are 2 min 0 s. */
export function durationText(seconds: number): string {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function tableLines(rows: readonly EvaluationRow[]): string[] {
  const width = Math.max(...rows.map(({ slice }) => slice.length));
  const names = Math.max(...rows.map(({ name }) => name.length));
  return rows.map((row) => {
    const bounds = Number.isFinite(row.low)
      ? `${row.low.toFixed(2)}, ${row.high.toFixed(2)}`
      : "too few";
    const score = `${row.mean.toFixed(2)} [${bounds}]`;
    const { difference, differenceLow, differenceHigh } = row;
    const change =
      difference === null
        ? ""
        : `   ${interval(difference, differenceLow ?? 0, differenceHigh ?? 0)}`;
    return `  ${row.slice.padEnd(width)}  ${row.name.padEnd(names)}  ${score}${change}`;
  });
}

/** Of a few pairs there is no interval, only a difference. */
function interval(difference: number, low: number, high: number): string {
  const signed = (value: number) => `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
  if (!Number.isFinite(low) || !Number.isFinite(high)) return `${signed(difference)} [too few]`;
  return `${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}
