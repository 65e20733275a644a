import { printableLine } from "@hone/core";
import type { Advice } from "../stopping/advise.ts";
import { stepText } from "../stopping/alarms.ts";
import type { Phase } from "../stopping/phases.ts";
import type { RunEvent } from "./run-event.ts";

/** Says how a run goes: a line for each thing that happened, and on a terminal one more that shows how far it is. */
export function createReporter(
  output: Pick<NodeJS.WriteStream, "write" | "isTTY" | "columns">,
): (event: RunEvent) => void {
  let current = { label: "", total: 1 };
  /** Whether the cursor stands behind the line that shows how far it is. */
  let showing = false;
  const show = (done: number, note: string): void => {
    if (!output.isTTY) return;
    const share = `${Math.floor((100 * done) / current.total)}%`;
    const text = printableLine(`${current.label} ${share} ${note}`);
    // A terminal that was never told its size says that it has 0 columns.
    output.write(`\r\x1b[2K${text.slice(0, (output.columns || 80) - 1)}`);
    showing = true;
  };
  const line = (text: string): void => {
    output.write(`${showing ? "\r\x1b[2K" : ""}${text}\n`);
    showing = false;
  };
  return (event) => {
    switch (event.type) {
      case "started":
        line(`files: ${event.out}`);
        break;
      case "began":
        current = event;
        if (event.label.startsWith("evaluating")) line(`${event.label}: ${event.total} rollouts`);
        show(0, "");
        break;
      case "progressed":
        show(event.done, event.note);
        break;
      case "evaluated": {
        const { label, metric, score, seconds } = event;
        const shown = score === null ? "none" : figure(score);
        line(`held out, ${label}: ${metric} ${shown} (${seconds.toFixed(0)} s)`);
        break;
      }
      case "step-ended":
        line(stepLine(event));
        for (const { message } of event.record.warnings) line(`  ! ${message}`);
        break;
      case "alarm":
        line(
          `  ! alarm ${event.alarm.code}, step ${stepText(event.alarm)}: ${event.alarm.message}`,
        );
        line(`    ${event.file}`);
        break;
      case "advice":
        for (const text of adviceLines(event.advice)) line(text);
        break;
      case "stopped":
        line(`stopping after step ${event.stopped.step}: ${event.stopped.message}`);
        break;
      case "ended":
        // Whatever is printed next begins on a line of its own.
        if (showing) output.write("\n");
        showing = false;
    }
  };
}

function adviceLines({ phases, reasons, notes }: Advice): string[] {
  const phase = phases.at(-1);
  return [
    ...(phase ? [`phase: ${phaseText(phase)}`] : []),
    ...reasons.map(({ reason, message }) => `  stop here? ${reason}: ${message}`),
    ...notes.map((note) => `  ${note}`),
  ];
}

export function phaseText({ name, from, to }: Phase): string {
  return `${name} (steps ${from} to ${to})`;
}

type StepEnded = Extract<RunEvent, { type: "step-ended" }>;

export function stepLine(event: StepEnded): string {
  const { record, metric } = event;
  const { reward, seconds, training, variance, fill, overlap } = record;
  const loss = training["loss"];
  const gap = training["sampling/sampling_logp_difference/mean"];
  const score = record.metrics[metric];
  const parts = [
    `step ${event.step}/${event.steps}`,
    reward ? `reward ${reward.mean.toFixed(2)}` : "no reward",
    ...(score === undefined ? [] : [`${metric} ${figure(score)}`]),
    `${variance.groups} of ${variance.of} groups differ${fill ? ` (${fill.wanted} wanted)` : ""}`,
    `${record.answers.distinct} answers`,
    `${record.tokensPerSecond.toFixed(0)} tokens/s`,
    `played ${(seconds["gather"] ?? 0).toFixed(1)} s`,
    `trained ${(seconds["train"] ?? 0).toFixed(1)} s`,
    ...(overlap ? overlapNotes(overlap) : []),
    `loss ${typeof loss === "number" ? loss.toFixed(4) : "none"}`,
    ...(typeof gap === "number" ? [`sampler/trainer ${gap.toFixed(4)}`] : []),
    record.policy,
    droppedNote(event),
  ];
  return parts.filter(Boolean).join(" | ");
}

function overlapNotes(overlap: NonNullable<StepEnded["record"]["overlap"]>): string[] {
  const { waitedForRollouts, waitedForTraining, staleness, resampled } = overlap;
  return [
    `waited ${waitedForRollouts.toFixed(1)} s for rollouts, ${waitedForTraining.toFixed(1)} s for training`,
    ...(staleness ? [`staleness ${staleness.mean.toFixed(1)} (most ${staleness.max})`] : []),
    ...(resampled > 0 ? [`${resampled} stale rollouts played again`] : []),
  ];
}

/** What did not train, and why. */
function droppedNote({ result, record: { failed } }: StepEnded): string {
  const notes = Object.entries(result.reasons).map(
    ([reason, groups]) => `${groups} ${groups === 1 ? "group" : "groups"} ${reason}`,
  );
  const members = new Map<string, number>();
  for (const { dropped } of result.groups) {
    for (const [reason, count] of Object.entries(dropped)) {
      members.set(reason, (members.get(reason) ?? 0) + count);
    }
  }
  for (const [reason, count] of members) notes.push(`${count} rollouts ${reason}`);
  if (failed > 0) notes.push(`${failed} rollouts failed`);
  if (!result.trained) return `trained nothing: ${notes.join(", ")}`;
  return notes.length > 0 ? `dropped: ${notes.join(", ")}` : "";
}

/** Scores of thousands need no decimals, shares need two. */
export function figure(value: number, scale = value): string {
  const size = Math.abs(scale);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}
