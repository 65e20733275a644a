import { join } from "node:path";
import type { EvaluationRow } from "../evaluation/compare.ts";
import { stepText } from "../stopping/alarms.ts";
import { figure, phaseText } from "./reporter.ts";
import type { MetricChange, RunSummary } from "./summary.ts";
import type { Outcome } from "./verdict.ts";

/** `serverData` is the server's data folder, null where it is not known. */
export function summaryText(summary: RunSummary, serverData: string | null): string {
  const { adapter, metric, out, starts } = summary;
  return [
    "",
    `"${metric}" on ${countText(summary)}, by the base and by ${summary.policy}`,
    "(95% intervals over scenarios; the difference is paired):",
    ...tableLines(summary.table),
    ...Object.entries(summary.references).map(
      ([name, value]) => `  ${name}, for comparison: ${figure(value)}`,
    ),
    ...listLines("Failed, and counted for nobody", summary.failed),
    ...Object.entries(summary.notCompared).map(
      ([name, why]) => `  ${name} could not be compared with: ${why}`,
    ),
    ...metricLines(summary.metrics),
    "",
    ...verdictLines(summary),
    "",
    ...summary.curves,
    ...watchLines(summary),
    "",
    `Where the time went: ${stagesText(summary.stages)}`,
    `Wall time     ${durationText(summary.seconds)}${starts > 1 ? ` over ${starts} starts` : ""}`,
    ...(summary.usd > 0
      ? [`Paid          $${summary.usd.toFixed(4)} for judges and rollouts`]
      : []),
    `Curves        ${out}/curves.svg`,
    `Metrics       ${out}/metrics.jsonl`,
    `Trajectories  ${out}/trajectories/*.jsonl`,
    ...(adapter === null ? [] : [`Adapter       ${placeOf(adapter, serverData)} (PEFT format)`]),
  ].join("\n");
}

function watchLines(summary: RunSummary): string[] {
  const { phases, stopped, alarms, reasons } = summary.watch;
  const { trained, steps, outcome } = summary;
  // Where nothing was, the verdict says so.
  const short = trained < steps && !stopped && outcome !== "nothing-trained";
  const raised = alarms.map((alarm) => `${alarm.code} (step ${stepText(alarm)})`);
  return [
    ...(phases.length > 0 ? [`held-out score: ${phases.map(phaseText).join(", ")}`] : []),
    ...(raised.length > 0 ? [`Alarms: ${raised.join(", ")}`] : []),
    ...(short
      ? [
          `${trained} of ${steps} steps are trained: then batches trained nothing${idleText(summary)}.`,
        ]
      : []),
    ...(stopped ? [`Stopped by its ${stopped.by} (${stopped.what}): ${stopped.message}`] : []),
    ...(stopped ? [] : reasons.map(({ message }) => `It could have stopped: ${message}`)),
  ];
}

/** Only scenarios that both answered can be compared. */
function countText({ verdict: { pairs }, heldOut }: RunSummary): string {
  return pairs === heldOut
    ? `${pairs} held-out scenarios`
    : `${pairs} of ${heldOut} held-out scenarios (those that did not fail)`;
}

function listLines(what: string, counts: Readonly<Record<string, number>>): string[] {
  const parts = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  return parts.length > 0 ? [`  ${what}: ${parts.join(", ")}`] : [];
}

function tableLines(rows: readonly EvaluationRow[]): string[] {
  const width = Math.max(...rows.map(({ slice }) => slice.length));
  const names = Math.max(...rows.map(({ name }) => name.length));
  const scale = Math.max(...rows.map(({ mean }) => Math.abs(mean)));
  return rows.map((row) => {
    const { mean, low, high, difference, differenceLow, differenceHigh } = row;
    const bounds = Number.isFinite(low)
      ? `${figure(low, scale)}, ${figure(high, scale)}`
      : "too few";
    const change =
      difference === null
        ? ""
        : `   ${interval({ difference, low: differenceLow ?? 0, high: differenceHigh ?? 0 }, scale)}`;
    return `  ${row.slice.padEnd(width)}  ${row.name.padEnd(names)}  ${figure(mean, scale)} [${bounds}]${change}`;
  });
}

function metricLines(metrics: RunSummary["metrics"]): string[] {
  const width = Math.max(0, ...Object.keys(metrics).map(({ length }) => length));
  const lines = Object.entries(metrics).map(([name, change]) => {
    const scale = Math.max(Math.abs(change.before), Math.abs(change.after));
    return `  ${name.padEnd(width)}  ${arrow(change, scale)}   ${interval(change, scale)}`;
  });
  return lines.length > 0 ? ["Other metrics, base → trained:", ...lines] : [];
}

/** Why batches trained nothing, where a run has fewer steps than it was to train. */
function idleText({ untrained }: RunSummary): string {
  const reasons = Object.entries(untrained).map(([reason, groups]) => `${groups} ${reason}`);
  return reasons.length === 0 ? "" : ` (groups of the newest batches: ${reasons.join(", ")})`;
}

function verdictLines(summary: RunSummary): string[] {
  const { verdict, outcome, worse, below } = summary;
  const scale = Math.max(Math.abs(verdict.before), Math.abs(verdict.after));
  const difference = interval(verdict, scale);
  const change = `${arrow(verdict, scale)}, difference ${difference}`;
  const outcomes: Record<Outcome, string> = {
    learnt: `It has learnt: ${change}; the whole interval lies above 0.`,
    "slice-worse": `It has learnt in all but not everywhere: ${change}. A part got worse by more than chance explains, so it does not pass.`,
    worse: `It got worse: ${change}; the whole interval lies below 0. Try a lower learning rate (--lr).`,
    "nothing-trained": `Nothing was trained${idleText(summary)}. The policy is the base, and the figures above compare it with itself.`,
    unclear: `It has not shown that it learnt: the interval of the difference, ${difference}, is not above 0, so chance may explain it. Try more steps (--steps) or another learning rate (--lr).`,
  };
  return [
    outcomes[outcome],
    ...worse.map((row) => `Worse than the base: ${rowText(row)}`),
    ...below.map((row) => `Below the base, as chance may explain: ${rowText(row)}`),
  ];
}

function rowText({ slice, name, mean, ...row }: EvaluationRow): string {
  const { difference, differenceLow, differenceHigh } = row;
  const change = {
    difference: difference ?? 0,
    low: differenceLow ?? 0,
    high: differenceHigh ?? 0,
  };
  return `${slice} (${name}), ${interval(change, mean)}.`;
}

function arrow({ before, after }: Pick<MetricChange, "before" | "after">, scale: number): string {
  return `${figure(before, scale)} → ${figure(after, scale)}`;
}

/** Of a few pairs there is no interval, only a difference. */
function interval(
  { difference, low, high }: Pick<MetricChange, "difference" | "low" | "high">,
  scale: number,
): string {
  const signed = (value: number) => `${value < 0 ? "" : "+"}${figure(value, scale)}`;
  if (!Number.isFinite(low) || !Number.isFinite(high)) return `${signed(difference)} [too few]`;
  return `${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}

/** The stages that the server tells of are parts of the training, and the longest of them are enough. */
function stagesText(stages: RunSummary["stages"]): string {
  const listed = (nested: boolean) =>
    Object.entries(stages)
      .filter(([stage]) => stage.startsWith("training: ") === nested)
      .sort(([, a], [, b]) => b - a)
      .map(([stage, seconds]) => `${stage.replace("training: ", "")} ${seconds.toFixed(1)} s`);
  const parts = listed(true).slice(0, 4);
  return `${listed(false).join(", ")}${parts.length > 0 ? ` (in training: ${parts.join(", ")})` : ""}`;
}

/** Rounded before it is split: 119.7 s are 2 min 0 s. */
export function durationText(seconds: number): string {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function placeOf(adapter: string, serverData: string | null): string {
  if (serverData === null) return `${adapter} in the server's data folder`;
  return join(serverData, adapter);
}
