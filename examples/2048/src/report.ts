import { join } from "node:path";
import cliProgress from "cli-progress";
import type { Comparison } from "@hone/client";
import type { RunListener, RunSummary, StepReport } from "./train-run.ts";

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
    stepEnded: (report) => line(stepLine(report)),
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
  const { result } = report;
  const loss = result.metrics["loss"];
  const parts = [
    `step ${report.step}/${report.steps}`,
    `reward ${report.rewardMean.toFixed(2)} ± ${report.rewardStd.toFixed(2)}`,
    `score ${report.scoreMean.toFixed(0)}`,
    `${report.tokensPerSecond.toFixed(0)} tokens/s`,
    `played ${report.gatherSeconds.toFixed(1)} s`,
    `trained ${report.trainSeconds.toFixed(1)} s`,
    `loss ${typeof loss === "number" ? loss.toFixed(4) : "none"}`,
    report.policy,
  ];
  const dropped = droppedNote(report);
  return dropped ? `${parts.join(" | ")} | ${dropped}` : parts.join(" | ");
}

/** What did not train, and why. */
function droppedNote({ result, failed }: StepReport): string {
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
  const { score, won, adapter } = summary;
  return [
    "",
    `The same ${score.pairs} held-out games, played by the base and by ${summary.policy}:`,
    `  mean score    ${comparisonText(score, (value) => value.toFixed(0))}`,
    `  reaches ${String(target).padEnd(5)} ${comparisonText(won, (value) => `${(100 * value).toFixed(0)}%`)}`,
    `  (difference with its 95% interval over the games)`,
    `Wall time ${Math.floor(summary.seconds / 60)} min ${Math.round(summary.seconds % 60)} s`,
    `Metrics       ${summary.out}/metrics.jsonl`,
    `Trajectories  ${summary.out}/trajectories/*.jsonl`,
    ...(adapter === null ? [] : [`Adapter       ${placeOf(adapter, serverData)} (PEFT format)`]),
  ].join("\n");
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
  const { before, after, difference, low, high } = comparison;
  return `${show(before)} → ${show(after)}   ${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}
