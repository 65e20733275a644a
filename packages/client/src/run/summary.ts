import { HoneError } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import {
  compare,
  evaluationTable,
  type Comparison,
  type EvaluationRow,
} from "../evaluation/compare.ts";
import { scoresByScenario } from "../evaluation/scores.ts";
import type { RunRecord } from "../run-log/curves.ts";
import type { WatchSummary } from "./run-watch.ts";
import type { Totals } from "./totals.ts";
import { decide, type Verdict } from "./verdict.ts";

/** summary.json. The totals are those of all starts of the run. */
export interface RunSummary extends Totals, Verdict {
  policy: string;
  /** Steps that the run was to train. */
  steps: number;
  /** Steps that it has trained, over all starts. */
  trained: number;
  /** Why the batches behind the last of these trained nothing: reason → groups. */
  untrained: Record<string, number>;
  seed: number;
  metric: string;
  /** The comparison that decides: base against trained policy, on the held-out scenarios. */
  verdict: Comparison;
  /** How many held-out scenarios each was to answer. */
  heldOut: number;
  /** Rollouts that failed and count for nobody, by evaluation. Evaluations without any are left out. */
  failed: Record<string, number>;
  /** Other models that could not answer, and why. */
  notCompared: Record<string, string>;
  /** Base, trained and other models side by side, in all and by slice. */
  table: EvaluationRow[];
  /** The rollouts' other metrics, of base and trained policy. */
  metrics: Record<string, MetricChange>;
  /** Levels that the task compares its scores with. */
  references: Readonly<Record<string, number>>;
  /** The curves in words. */
  curves: string[];
  /** The phases of the held-out score, alarms, and why the run ended where it was not by its last step. */
  watch: WatchSummary;
  out: string;
  /** The adapter's folder in the server's data folder. Null if nothing was learnt. */
  adapter: string | null;
}

/** A policy that nothing has trained is the base: whatever the figures say by chance, it has not learnt. */
export function ofUntrained<Judged extends Verdict>(judged: Judged): Judged {
  return { ...judged, learnt: false, outcome: "nothing-trained" };
}

/** Why the newest batches trained nothing: reason → groups. Empty where the newest one trained. */
export function untrainedReasons(records: readonly RunRecord[]): Record<string, number> {
  const steps = records.filter((one) => one.type === "step").sort((a, b) => a.step - b.step);
  const last = steps.findLastIndex(({ trained }) => trained);
  const reasons: Record<string, number> = {};
  for (const step of steps.slice(last + 1)) {
    for (const [reason, groups] of Object.entries(step.reasons)) {
      reasons[reason] = (reasons[reason] ?? 0) + groups;
    }
  }
  return reasons;
}

export type MetricChange = Pick<Comparison, "before" | "after"> & {
  difference: number;
  low: number;
  high: number;
};

/** An evaluation of base and trained policy, under the names that it is shown by. */
export interface Evaluated {
  names: readonly [base: string, trained: string];
  base: TrajectoryGroup[];
  trained: TrajectoryGroup[];
}

/** A verdict compares the scores of at least two scenarios. */
export function canBeJudged(groups: readonly TrajectoryGroup[], metric: string): boolean {
  return scoresByScenario(groups, metric).size > 1;
}

/** Called before anything is trained. */
export function requireScores(base: readonly TrajectoryGroup[], metric: string): void {
  if (canBeJudged(base, metric)) return;
  const scored = scoresByScenario(base, metric).size;
  const rollouts = base.flatMap(({ trajectories }) => trajectories);
  const others = [...new Set(rollouts.flatMap(({ metrics }) => Object.keys(metrics)))];
  const [what, advice] =
    metric === "reward"
      ? ["a reward", 'Return one from the rollout, or give one in score where mode is "eval" too']
      : [`the metric "${metric}"`, `Return it from the rollout, as metrics: { ${metric} }`];
  throw new HoneError(
    `${scored} of the base's ${rollouts.length} held-out rollouts have ${what}, and the verdict compares at least 2. ` +
      `Nothing has been trained yet. ${advice}, or set the task's metric to one that they have: ${others.join(", ") || "they have no metrics"}.`,
    { code: "invalid_config", param: "metric" },
  );
}

/** The first evaluation decides; others stand below it in the table. */
export function judge(given: {
  metric: string;
  slice: ((scenario: never) => string | number) | undefined;
  evaluated: readonly [Evaluated, ...Evaluated[]];
  others: Readonly<Record<string, TrajectoryGroup[]>>;
}) {
  const { metric, slice, evaluated, others } = given;
  const [deciding, ...beside] = evaluated;
  const verdict = compare(deciding.base, deciding.trained, { metric });
  const pairs = [...pairsOf(deciding), ...Object.entries(others)];
  const rows = evaluationTable(pairs, { metric, by: slice });
  // The first row of each is that of all scenarios.
  const slices = rows.filter(({ name }) => name === deciding.names[1]).slice(1);
  const below = beside.flatMap((one) => evaluationTable(pairsOf(one), { metric }));
  const decided = decide(verdict, slices);
  return {
    ...{ metric, verdict, heldOut: deciding.base.length },
    ...decided,
    below: [...decided.below, ...below.filter(({ difference }) => (difference ?? 0) < 0)],
    table: [...rows, ...below],
    metrics: changesOf(deciding, metric),
    failed: failuresOf([...pairs, ...beside.flatMap(pairsOf)]),
  };
}

type Named = [name: string, groups: TrajectoryGroup[]];

function pairsOf({ names: [base, trained], ...groups }: Evaluated): Named[] {
  return [
    [base, groups.base],
    [trained, groups.trained],
  ];
}

function failuresOf(evaluations: readonly Named[]): Record<string, number> {
  return Object.fromEntries(
    evaluations
      .map(
        ([name, groups]) => [name, groups.flatMap(({ exceptions }) => exceptions).length] as const,
      )
      .filter(([, count]) => count > 0),
  );
}

function changesOf(evaluated: Evaluated, deciding: string): Record<string, MetricChange> {
  const names = new Set(
    evaluated.base.flatMap(({ trajectories }) =>
      trajectories.flatMap(({ metrics }) => ["reward", ...Object.keys(metrics)]),
    ),
  );
  names.delete(deciding);
  return Object.fromEntries(
    [...names].flatMap((metric) => {
      const [base, trained] = evaluationTable(pairsOf(evaluated), { metric, resamples: 1000 });
      if (!base || !trained || trained.difference === null) return [];
      const { difference, differenceLow: low, differenceHigh: high } = trained;
      const change = { before: base.mean, after: trained.mean, difference };
      return [[metric, { ...change, low: low ?? -Infinity, high: high ?? Infinity }]];
    }),
  );
}
