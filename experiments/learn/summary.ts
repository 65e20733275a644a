// What the runs say: scores after the same number of samples with intervals, and the time to a fixed score.
import { mulberry32 } from "@hone/core";
import type { Judgement } from "./judge.ts";
import { contenders, type Contender, type RunRecord } from "./run-record.ts";

/** A run with what the judge said of its policies. */
export interface JudgedRun extends RunRecord {
  judgements: { step: number; judgement: Judgement }[];
}

export interface Point {
  step: number;
  seconds: number;
  score: number;
}

export interface ScoreRow {
  step: number;
  /** Mean over seeds and scenarios. */
  trl: number;
  hone: number;
  bySeed: Record<Contender, number[]>;
  /** Hone's score less TRL's, with its 95% interval. */
  difference: number;
  low: number;
  high: number;
}

export interface Summary {
  base: number;
  rows: ScoreRow[];
  /** Medians over seeds. */
  secondsPerStep: Record<Contender, number>;
  startSeconds: Record<Contender, number>;
  processorSecondsPerStep: Record<Contender, number | null>;
  /** Three quarters of the way from the base to the lower of the two final scores. */
  goal: number;
  /** By seed; null where the run does not reach the goal. */
  secondsToGoal: Record<Contender, (number | null)[]>;
  /** Hone's seconds to the goal in TRL's: the median over seeds; null where one of a pair did not reach it. */
  timeRatio: number | null;
}

/** The base stands at 0 seconds in every curve. */
export function curveOf(run: JudgedRun): Point[] {
  return run.judgements.map(({ step, judgement }) => ({
    step,
    seconds: step === 0 ? 0 : (run.steps.find((one) => one.step === step)?.seconds ?? Number.NaN),
    score: mean(judgement.scores),
  }));
}

export function medianCurve(runs: readonly JudgedRun[]): Point[] {
  const curves = runs.map(curveOf);
  return (curves[0] ?? []).map(({ step }, index) => ({
    step,
    seconds: median(curves.map((curve) => curve[index]?.seconds ?? Number.NaN)),
    score: median(curves.map((curve) => curve[index]?.score ?? Number.NaN)),
  }));
}

/** Of runs of both contenders with the same seeds, in the same order. */
export function summarise(runs: Record<Contender, JudgedRun[]>): Summary {
  const each = <T>(of: (runs: JudgedRun[]) => T): Record<Contender, T> => ({
    trl: of(runs.trl),
    hone: of(runs.hone),
  });
  const steps = runs.trl[0]?.judgements.map(({ step }) => step) ?? [];
  const rows = steps.map((step, index) => rowAt(runs, step, index));
  const base = rows[0]?.trl ?? Number.NaN;
  const last = rows.at(-1);
  const goal = base + 0.75 * (Math.min(last?.trl ?? 0, last?.hone ?? 0) - base);
  const secondsToGoal = each((all) => all.map((run) => timeTo(curveOf(run), goal)));
  const ratios = secondsToGoal.hone.map((hone, index) => {
    const trl = secondsToGoal.trl[index];
    return hone === null || trl === null || trl === undefined ? null : hone / trl;
  });
  return {
    base,
    rows,
    secondsPerStep: each((all) => median(all.map(secondsPerStep))),
    startSeconds: each((all) => median(all.map(({ startSeconds }) => startSeconds))),
    processorSecondsPerStep: each((all) => {
      const known = all.flatMap(({ steps: done }) =>
        done
          .flatMap(({ step, processorSeconds }) =>
            processorSeconds === null ? [] : [processorSeconds / step],
          )
          .slice(-1),
      );
      return known.length === all.length ? median(known) : null;
    }),
    goal,
    secondsToGoal,
    timeRatio: ratios.every((ratio) => ratio !== null) ? median(ratios) : null,
  };
}

/** The median step: one that something else on the machine held up does not count. */
function secondsPerStep({ steps }: RunRecord): number {
  return median(steps.map(({ seconds }, index) => seconds - (steps[index - 1]?.seconds ?? 0)));
}

function rowAt(runs: Record<Contender, JudgedRun[]>, step: number, index: number): ScoreRow {
  const scores = (contender: Contender): number[][] =>
    runs[contender].map((run) => run.judgements[index]?.judgement.scores ?? []);
  const [trl = [], hone = []] = contenders.map(scores);
  const differences = hone.map((ofSeed, seed) =>
    ofSeed.map((score, scenario) => score - (trl[seed]?.[scenario] ?? Number.NaN)),
  );
  return {
    step,
    trl: mean(trl.map(mean)),
    hone: mean(hone.map(mean)),
    bySeed: { trl: trl.map(mean), hone: hone.map(mean) },
    difference: mean(differences.map(mean)),
    ...interval(differences),
  };
}

const resamples = 5000;

/**
 * 95%, by bootstrap: seeds are drawn anew and, the same for all of them, scenarios. What the luck of a run does is
 * in it, as far as so few seeds can say.
 */
function interval(bySeed: readonly (readonly number[])[]): { low: number; high: number } {
  const random = mulberry32(0);
  const scenarios = bySeed[0]?.length ?? 0;
  const below = (count: number): number => Math.floor(random() * count);
  const means = Array.from({ length: resamples }, () => {
    const seeds = bySeed.map(() => bySeed[below(bySeed.length)] ?? []);
    let sum = 0;
    for (let drawn = 0; drawn < scenarios; drawn++) {
      const scenario = below(scenarios);
      for (const ofSeed of seeds) sum += ofSeed[scenario] ?? Number.NaN;
    }
    return sum / (scenarios * seeds.length);
  }).sort((a, b) => a - b);
  return {
    low: means[Math.floor(0.025 * resamples)] ?? Number.NaN,
    high: means[Math.ceil(0.975 * resamples) - 1] ?? Number.NaN,
  };
}

/** Seconds until the curve is first at the goal, on the line between two judged policies. */
export function timeTo(curve: readonly Point[], goal: number): number | null {
  for (const [index, point] of curve.entries()) {
    if (point.score < goal) continue;
    const before = curve[index - 1];
    if (!before) return point.seconds;
    const share = (goal - before.score) / (point.score - before.score);
    return before.seconds + share * (point.seconds - before.seconds);
  }
  return null;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? Number.NaN) + upper) / 2;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
