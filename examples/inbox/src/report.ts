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
  const { verdict, adapter, metric, table } = summary;
  const worse = table.filter(({ difference }) => difference !== null && difference < 0);
  const minutes = (seconds: number) =>
    `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  const difference = interval(verdict.difference, verdict.low, verdict.high);
  return [
    "",
    `"${metric}" on ${verdict.pairs} held-out scenarios, by the base and by ${summary.policy}`,
    "(95% intervals over scenarios; the difference is paired):",
    ...tableLines(table),
    "",
    summary.learnt
      ? `It has learnt: ${verdict.before.toFixed(2)} → ${verdict.after.toFixed(2)}, difference ${difference}; the whole interval lies above 0.`
      : `It has not shown that it learnt: the interval of the difference, ${difference}, is not above 0. Try more steps (--steps) or another learning rate (--lr).`,
    ...worse.map(({ slice, name }) => `Below the base: ${slice} (${name}).`),
    "",
    ...summary.curves,
    "",
    `Wall time     ${minutes(summary.seconds)}, of which ${minutes(summary.trainingSeconds)} for the steps`,
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

export function tableLines(rows: readonly EvaluationRow[]): string[] {
  const width = Math.max(...rows.map(({ slice }) => slice.length));
  const names = Math.max(...rows.map(({ name }) => name.length));
  return rows.map((row) => {
    const score = `${row.mean.toFixed(2)} [${row.low.toFixed(2)}, ${row.high.toFixed(2)}]`;
    const { difference, differenceLow, differenceHigh } = row;
    const change =
      difference === null
        ? ""
        : `   ${interval(difference, differenceLow ?? 0, differenceHigh ?? 0)}`;
    return `  ${row.slice.padEnd(width)}  ${row.name.padEnd(names)}  ${score}${change}`;
  });
}

function interval(difference: number, low: number, high: number): string {
  const signed = (value: number) => `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
  return `${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}
