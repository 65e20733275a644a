import { compare, evaluationTable } from "@hone/client";
import type { Comparison, EvaluationRow, TrajectoryGroup } from "@hone/client";
import type { OthersPlayed } from "./others.ts";
import { styleMetric, styleNames, type StyleName } from "./styles.ts";
import type { Totals } from "./totals.ts";
import { outcomeOf, type Outcome } from "./verdict.ts";

/** summary.json. The totals are those of all starts of the run. */
export interface RunSummary extends Totals {
  policy: string;
  steps: number;
  outcome: Outcome;
  score: Comparison;
  won: Comparison;
  seed: number;
  /** Base, trained and other models side by side. */
  table: EvaluationRow[];
  /** Held-out games that each was to play. */
  games: number;
  /** Games that failed and count for nobody, by who played; only where there are any. */
  failed: Record<string, number>;
  /** Share of games that ended because the context was full, by who played; only where there are any. */
  cut: Record<string, number>;
  /** Other models whose games could not be played, and why. */
  notCompared: Record<string, string>;
  /** The style that plays the verdict's games best: about what there is to reach. */
  ceiling: { name: StyleName; score: number; won: number };
  /** Share of the moves of base and trained policy that a style would choose too. */
  styles: Record<StyleName, { before: number; after: number }>;
  /** The curves in words. */
  curves: string[];
  out: string;
  /** In the server's data folder; null where nothing was learnt. */
  adapter: string | null;
}

/** `before` and `after` are of the same scenarios, base and trained policy. */
export function summarize(given: {
  before: TrajectoryGroup[];
  after: TrajectoryGroup[];
  others: OthersPlayed;
  totals: Totals;
  run: Pick<RunSummary, "steps" | "seed" | "ceiling" | "curves" | "out" | "adapter">;
  /** What the policy is called where no game of it tells. */
  name: string;
}): RunSummary {
  const { before, after, others, totals, run, name } = given;
  const evaluations = { base: before, trained: after, ...others.evaluations };
  const score = compare(before, after, { metric: "score" });
  return {
    policy: after.flatMap(({ trajectories }) => trajectories)[0]?.policy ?? name,
    outcome: outcomeOf(score),
    score,
    won: compare(before, after, { metric: "won" }),
    table: evaluationTable(evaluations, { metric: "score" }),
    games: before.length,
    failed: positive(evaluations, (groups) =>
      groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0),
    ),
    cut: positive(evaluations, shareCut),
    notCompared: others.failures,
    styles: Object.fromEntries(
      styleNames.map((style) => [style, sharesOf(style, before, after)]),
    ) as RunSummary["styles"],
    ...run,
    ...totals,
  };
}

function positive(
  evaluations: Readonly<Record<string, TrajectoryGroup[]>>,
  read: (groups: TrajectoryGroup[]) => number,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(evaluations)
      .map(([name, groups]) => [name, read(groups)] as const)
      .filter(([, value]) => value > 0),
  );
}

function shareCut(groups: TrajectoryGroup[]): number {
  const games = groups.flatMap(({ trajectories }) => trajectories);
  const cut = games.reduce((sum, { metrics }) => sum + (metrics["cut"] ?? 0), 0);
  return cut / Math.max(games.length, 1);
}

function sharesOf(style: StyleName, before: TrajectoryGroup[], after: TrajectoryGroup[]) {
  const shares = compare(before, after, { metric: styleMetric(style) });
  return { before: shares.before, after: shares.after };
}
