import { printableLine } from "@hone/core";
import type { JudgeReport } from "./examine.ts";
import type { Estimate } from "./statistics.ts";

/** The reports side by side, a column for each judge, and each verdict in words below. */
export function reportText(reports: readonly JudgeReport[]): string {
  const rows: [string, (report: JudgeReport) => string][] = [
    ["verdict", ({ verdict }) => verdict.level],
    ["variance within groups", ({ variance }) => estimated(variance)],
    ["groups without variance", ({ zeroVariance }) => estimated(zeroVariance)],
    ["accuracy against gold", ({ accuracy }) => estimated(accuracy)],
    ["  of pairs told apart", ({ rankAccuracy }) => estimated(rankAccuracy)],
    ["mean of variance and accuracy", ({ combined }) => estimated(combined)],
    ["noise ratio", ({ noiseRatio }) => estimated(noiseRatio)],
    ["position bias", ({ positionBias }) => estimated(positionBias)],
    ["scores at an end of the scale", ({ saturation }) => estimated(saturation)],
    ["valid judgings", ({ judgings: { asked, valid } }) => `${valid} of ${asked}`],
    ["cost of a judging", ({ costUsdPerJudging }) => dollars(costUsdPerJudging)],
    ["seconds of a judging", ({ secondsPerJudging }) => secondsPerJudging?.toFixed(2) ?? "unknown"],
  ];
  const cells = [
    ["", ...reports.map(({ judge }) => printableLine(judge))],
    ...rows.map(([name, cell]) => [name, ...reports.map(cell)]),
  ];
  const widths = cells[0]?.map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)));
  const lines = cells.map((row) =>
    row
      .map((cell, at) =>
        at === 0 ? cell.padEnd(widths?.[at] ?? 0) : cell.padStart(widths?.[at] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
  const words = reports.flatMap(({ judge, verdict, errors }) => [
    "",
    `${printableLine(judge)}: ${verdict.level === "good" ? "can teach." : verdict.level === "warn" ? "can teach, with care." : "cannot teach as it is."}`,
    ...verdict.reasons.map((reason) => `  - ${reason}`),
    ...errors.map(({ message, count }) => `  - ${count}×: ${printableLine(message)}`),
  ]);
  return [...lines, ...words].join("\n");
}

function estimated(estimate: Estimate | null): string {
  if (!estimate) return "unknown";
  const { value, low, high } = estimate;
  const interval =
    low === null || high === null ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`;
  return `${value.toFixed(2)}${interval}`;
}

function dollars(usd: number | null): string {
  return usd === null ? "unknown" : `$${usd.toFixed(5)}`;
}
