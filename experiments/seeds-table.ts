import type { Comparison } from "@hone/client";
import type { SeedRun } from "./seeds-run.ts";

/** The runs as Markdown tables: verdicts, then where time and processor went. */
export function resultsText(story: "2048" | "inbox", runs: readonly SeedRun[]): string {
  const digits = story === "2048" ? 0 : 2;
  const verdicts = [
    "| run | seed | held-out score, base → trained | difference | gate | wall time |",
    "|---|---|---|---|---|---|",
    ...runs.map((run) => {
      const { verdict, kind, seed, seconds } = run;
      return `| ${kind} | ${seed} | ${arrow(verdict, digits)} | ${interval(verdict, digits)} | ${gate(verdict)} | ${duration(seconds)} |`;
    }),
  ];
  const levels = Object.entries(runs[0]?.references ?? {});
  return [
    "",
    ...verdicts,
    ...levels.map(
      ([name, score]) => `\nFor comparison, the ${name} on the same games: ${score.toFixed(0)}.`,
    ),
    "",
    ...stageTable(runs.filter(({ kind }) => kind === "fixed" || kind === "fresh")),
  ].join("\n");
}

function stageTable(runs: readonly SeedRun[]): string[] {
  if (runs.length === 0) return [];
  const names = [...new Set(runs.flatMap(({ stages }) => Object.keys(stages)))];
  const roles = [...new Set(runs.flatMap(({ cpu }) => Object.keys(cpu)))];
  const perTurn = runs.flatMap(({ cpu, turns }) =>
    turns
      ? [(1000 * ((cpu["agent"] ?? 0) + (cpu["server"] ?? 0) + (cpu["renderer"] ?? 0))) / turns]
      : [],
  );
  return [
    "| stage (median of the runs) | seconds of wall time |",
    "|---|---|",
    ...names.map(
      (name) => `| ${name} | ${median(runs.map(({ stages }) => stages[name] ?? 0)).toFixed(1)} |`,
    ),
    `| the whole command | ${median(runs.map(({ seconds }) => seconds)).toFixed(1)} |`,
    "",
    "| process (median of the runs) | seconds of processor time |",
    "|---|---|",
    ...roles.map(
      (role) => `| ${role} | ${median(runs.map(({ cpu }) => cpu[role] ?? 0)).toFixed(1)} |`,
    ),
    ...(perTurn.length > 0
      ? [
          "",
          `Processor time a turn outside the worker (agent, server, renderer, their start included): ${median(perTurn).toFixed(2)} ms over ${median(runs.map(({ turns }) => turns ?? 0)).toFixed(0)} turns.`,
        ]
      : []),
  ];
}

function arrow({ before, after }: Comparison, digits: number): string {
  return `${before.toFixed(digits)} → ${after.toFixed(digits)}`;
}

function interval({ difference, low, high }: Comparison, digits: number): string {
  const signed = (value: number) => `${value < 0 ? "" : "+"}${value.toFixed(digits)}`;
  return `${signed(difference)} [${signed(low)}, ${signed(high)}]`;
}

function gate({ low, high }: Comparison): string {
  if (low > 0) return "passes";
  return high < 0 ? "got worse" : "holds 0";
}

function duration(seconds: number): string {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
