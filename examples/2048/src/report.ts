import { join } from "node:path";
import cliProgress from "cli-progress";
import type { Comparison } from "@hone/client";
import type { RunSummary } from "./summary.ts";
import type { RunListener, StepReport } from "./train-run.ts";
import { outcomeText } from "./verdict.ts";

/** A bar on a terminal, plain lines elsewhere. */
export function createReporter(output: NodeJS.WriteStream): RunListener & { close(): void } {
  const bar = output.isTTY ? createBar(output) : null;
  const line = (text: string): void => {
    // The bar is gone while a line is written, and comes back with the next task.
    bar?.stop();
    output.write(`${text}\n`);
  };
  let current = "";
  return {
    began(task, total) {
      current = task;
      if (bar) {
        bar.stop();
        bar.start(total, 0, { task, note: "" });
      } else if (task.startsWith("evaluating")) {
        line(`${task}: ${total} games`);
      }
    },
    progressed(done, note) {
      bar?.update(done, { task: current, note });
    },
    stepEnded(report) {
      line(stepLine(report));
      for (const { message } of report.record.warnings) line(`  ! ${message}`);
    },
    evaluated: (label, score) => line(`held out, ${label}: score ${score.toFixed(0)}`),
    close: () => bar?.stop(),
  };
}

function createBar(stream: NodeJS.WriteStream): cliProgress.SingleBar {
  return new cliProgress.SingleBar(
    {
      format: "{task} [{bar}] {percentage}% | {duration_formatted} | {note}",
      stream,
      clearOnComplete: true,
      hideCursor: true,
      // Ctrl-C is the program's: it has rollouts to close first.
      gracefulExit: false,
    },
    cliProgress.Presets.rect,
  );
}

export function stepLine(report: StepReport): string {
  const { record } = report;
  const { reward, seconds } = record;
  const loss = record.training["loss"];
  const parts = [
    `step ${record.step}/${report.steps}`,
    reward ? `reward ${reward.mean.toFixed(2)} ± ${(reward.std ?? 0).toFixed(2)}` : "no reward",
    `score ${(record.metrics["score"] ?? 0).toFixed(0)}`,
    `${record.tokensPerSecond.toFixed(0)} tokens/s`,
    `played ${(seconds["gather"] ?? 0).toFixed(1)} s`,
    `trained ${(seconds["train"] ?? 0).toFixed(1)} s`,
    `loss ${typeof loss === "number" ? loss.toFixed(4) : "none"}`,
    record.policy,
  ];
  const dropped = droppedNote(report);
  return dropped ? `${parts.join(" | ")} | ${dropped}` : parts.join(" | ");
}

/** What did not train, and why. */
function droppedNote({ result, record: { failed } }: StepReport): string {
  const notes = Object.entries(result.reasons).map(
    ([reason, groups]) => `${groups} ${groups === 1 ? "group" : "groups"} ${reason}`,
  );
  const members = new Map<string, number>();
  for (const { dropped } of result.groups) {
    for (const [reason, count] of Object.entries(dropped)) {
      members.set(reason, (members.get(reason) ?? 0) + count);
    }
  }
  for (const [reason, count] of members) notes.push(`${count} games ${reason}`);
  if (failed > 0) notes.push(`${failed} games failed`);
  if (!result.trained) return `trained nothing: ${notes.join(", ")}`;
  return notes.length > 0 ? `dropped: ${notes.join(", ")}` : "";
}

/** `serverData` is the server's data folder, null where it is not known. */
export function summaryText(
  summary: RunSummary,
  target: number,
  serverData: string | null,
): string {
  const { score, won, adapter, table, ceiling, notCompared } = summary;
  const others = table.filter(({ name }) => name !== "base" && name !== "trained");
  return [
    "",
    `${gamesText(summary)}, played by the base and by ${summary.policy}:`,
    `  mean score    ${comparisonText(score, (value) => value.toFixed(0))}`,
    `  reaches ${String(target).padEnd(5)} ${comparisonText(won, (value) => `${(100 * value).toFixed(0)}%`)}`,
    `  (difference with its 95% interval over the games)`,
    ...others.map(
      ({ name, mean, low, high }) =>
        `  ${name} scores ${mean.toFixed(0)}${Number.isFinite(low) ? ` [${low.toFixed(0)}, ${high.toFixed(0)}]` : ""} on them`,
    ),
    `  the ${ceiling.name} style, the best simple one, scores ${ceiling.score.toFixed(0)} on them`,
    ...Object.entries(notCompared).map(
      ([name, why]) => `  ${name} could not be compared with: ${why}`,
    ),
    ...countsText("Failed, and counted for nobody", summary.failed, String),
    ...countsText("Ended because the context was full", summary.cut, percentText),
    outcomeText(score),
    "",
    `Moves that a style would choose too: ${stylesText(summary.styles)}`,
    "",
    ...summary.curves,
    "",
    `Where the time went: ${stagesText(summary.stages)}`,
    `Wall time ${durationText(summary.seconds)}${summary.starts > 1 ? ` over ${summary.starts} starts` : ""}`,
    `Curves        ${summary.out}/curves.svg`,
    `Metrics       ${summary.out}/metrics.jsonl`,
    `Trajectories  ${summary.out}/trajectories/*.jsonl`,
    ...(adapter === null ? [] : [`Adapter       ${placeOf(adapter, serverData)} (PEFT format)`]),
  ].join("\n");
}

function stylesText(styles: RunSummary["styles"]): string {
  const percent = (share: number) => (100 * share).toFixed(0);
  return Object.entries(styles)
    .map(([name, { before, after }]) => `${name} ${percent(before)} → ${percent(after)}%`)
    .join(", ");
}

/** The stages that the server tells of are parts of the training, and the longest of them are enough. */
function stagesText(stages: RunSummary["stages"]): string {
  const [whole, parts] = [false, true].map((nested) =>
    Object.entries(stages)
      .filter(([stage]) => stage.startsWith("training: ") === nested)
      .sort(([, a], [, b]) => b - a)
      .map(([stage, seconds]) => `${stage.replace("training: ", "")} ${seconds.toFixed(1)} s`),
  );
  const within = parts && parts.length > 0 ? ` (in training: ${parts.slice(0, 4).join(", ")})` : "";
  return `${(whole ?? []).join(", ")}${within}`;
}

/** Only games that both played to their end can be compared. */
function gamesText({ games, score: { pairs } }: RunSummary): string {
  return pairs === games
    ? `The same ${pairs} held-out games`
    : `The same ${pairs} held-out games (of ${games}, without those that failed)`;
}

function countsText(
  what: string,
  counts: Readonly<Record<string, number>>,
  show: (count: number) => string,
): string[] {
  const parts = Object.entries(counts).map(([name, count]) => `${name} ${show(count)}`);
  return parts.length > 0 ? [`  ${what}: ${parts.join(", ")}`] : [];
}

function percentText(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
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

/** The model lives in the server's data: only a server on that data goes on with it. */
export function stoppedText(name: string, serverData: string | null): string {
  if (serverData === null) return `Stopped. On the same server, --name ${name} goes on from here.`;
  return `Stopped. The model is in the server's data folder, ${serverData}`;
}

function comparisonText(comparison: Comparison, show: (value: number) => string): string {
  const signed = (value: number) => (value < 0 ? show(value) : `+${show(value)}`);
  const { before, after, difference, low, high, pairs } = comparison;
  if (!Number.isFinite(low)) {
    return `${show(before)} → ${show(after)}   ${signed(difference)} (${pairs} are too few for an interval)`;
  }
  return `${show(before)} → ${show(after)}   ${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}
