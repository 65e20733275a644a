// The tables of the experiment, in Markdown.
import type { ScoreRow, Summary } from "./summary.ts";
import type { LearnTask } from "./task.ts";

export function summaryText(summary: Summary, { name, settings, judging }: LearnTask): string {
  const samples = settings.groupsPerStep * settings.groupSize;
  const { secondsPerStep, startSeconds, processorSecondsPerStep, secondsToGoal } = summary;
  const seconds = (value: number | null): string =>
    value === null ? "–" : `${value.toFixed(1)} s`;
  const row = (what: string, trl: string, hone: string): string => `| ${what} | ${trl} | ${hone} |`;
  return [
    `${name}, score: ${judging.label}. Base ${digits(summary.base)}.`,
    "",
    "| samples | step | TRL | Hone | difference |",
    "|---|---|---|---|---|",
    ...summary.rows
      .filter(({ step }) => step > 0)
      .map((one) => `| ${one.step * samples} | ${one.step} | ${scores(one)} |`),
    "",
    "| | TRL | Hone |",
    "|---|---|---|",
    row("a step", seconds(secondsPerStep.trl), seconds(secondsPerStep.hone)),
    row(
      "processor time of a step",
      seconds(processorSecondsPerStep.trl),
      seconds(processorSecondsPerStep.hone),
    ),
    row("start-up, not in the clock", seconds(startSeconds.trl), seconds(startSeconds.hone)),
    row(
      `to a score of ${digits(summary.goal)}, by seed`,
      secondsToGoal.trl.map(seconds).join(", "),
      secondsToGoal.hone.map(seconds).join(", "),
    ),
    "",
    `Hone's time to that score in TRL's, median over seeds: ${summary.timeRatio?.toFixed(2) ?? "–"}`,
    "",
  ].join("\n");
}

function scores({ trl, hone, bySeed, difference, low, high }: ScoreRow): string {
  const cell = (mean: number, seeds: readonly number[]): string =>
    `${digits(mean)} (${seeds.map(digits).join(", ")})`;
  const sign = difference < 0 ? "−" : "+";
  return `${cell(trl, bySeed.trl)} | ${cell(hone, bySeed.hone)} | ${sign}${digits(Math.abs(difference))} [${digits(low)}, ${digits(high)}]`;
}

function digits(value: number): string {
  return value.toFixed(3).replace("-", "−");
}
