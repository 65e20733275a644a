import { mean, standardDeviation } from "../statistics.ts";

/** One evaluation of the same held-out scenarios as all others: scores by scenario. */
export interface FixedEvaluation {
  /** Steps trained before it; 0 is the base. */
  step: number;
  scores: ReadonlyMap<string, number>;
}

/** `flat` is level before anything has risen, `plateau` level afterwards. */
export type PhaseName = "flat" | "rising" | "plateau" | "falling";

export interface Phase {
  name: PhaseName;
  /** Steps of its first and its last evaluation. */
  from: number;
  to: number;
}

/** What a score did over some evaluations. */
interface Trend {
  direction: "rising" | "level" | "falling";
  /** Of the fitted line, from the first evaluation to the last. */
  rise: number;
  /** Of `rise`, over scenarios. */
  standardError: number;
}

/** Evaluations that a level is read off; two only say that there were two. */
export const fewestOfPlateau = 3;

/**
 * The trend over evaluations: each scenario has a line of its own, so that its difficulty does not count. A rise is
 * one of more than its standard error, a fall one of more than two: a run that learns is taken for one that stands
 * still in one of six evaluations, and one that stands still for one that falls in one of forty.
 */
export function trendOf(evaluations: readonly FixedEvaluation[]): Trend {
  const steps = evaluations.map(({ step }) => step);
  const span = Math.max(...steps) - Math.min(...steps);
  const centre = mean(steps);
  const spread = steps.reduce((sum, step) => sum + (step - centre) ** 2, 0);
  const [first, ...others] = evaluations;
  const rises: number[] = [];
  for (const key of first?.scores.keys() ?? []) {
    const scores = evaluations.map(({ scores: all }) => all.get(key));
    if (others.length === 0 || scores.some((score) => score === undefined)) continue;
    const slope = steps.reduce((sum, step, at) => sum + (step - centre) * (scores[at] ?? 0), 0);
    rises.push((slope / spread) * span);
  }
  if (rises.length === 0) return { direction: "level", rise: 0, standardError: 0 };
  const rise = mean(rises);
  const standardError = (standardDeviation(rises) ?? 0) / Math.sqrt(rises.length);
  // What rounding leaves of equal scores is no rise.
  const least = 1e-9 * Math.max(1, Math.abs(rise));
  const direction =
    rise > Math.max(least, standardError)
      ? "rising"
      : rise < -Math.max(least, 2 * standardError)
        ? "falling"
        : "level";
  return { direction, rise, standardError };
}

/** The newest evaluations that reach over `plateau` steps; all of them where they do not reach so far. */
export function plateauWindow(
  evaluations: readonly FixedEvaluation[],
  plateau: number,
): readonly FixedEvaluation[] {
  const newest = evaluations.at(-1)?.step ?? 0;
  const within = evaluations.findLastIndex(({ step }) => step <= newest - plateau);
  const from = within < 0 ? 0 : within;
  return evaluations.slice(Math.min(from, Math.max(0, evaluations.length - fewestOfPlateau)));
}

/** The curve in words, each phase with the steps that it reaches over. */
export function phasesOf(evaluations: readonly FixedEvaluation[], plateau: number): Phase[] {
  const phases: Phase[] = [];
  let risen = false;
  for (let count = 2; count <= evaluations.length; count += 1) {
    const window = plateauWindow(evaluations.slice(0, count), plateau);
    const { direction } = trendOf(window);
    risen ||= direction === "rising";
    const name: PhaseName =
      direction !== "level" ? direction : risen ? ("plateau" as const) : ("flat" as const);
    const to = evaluations[count - 1]?.step ?? 0;
    const last = phases.at(-1);
    if (last?.name === name) last.to = to;
    // A level shows only when it has lasted: it began with the evaluations that it is read off, but no earlier phase is cut short.
    else phases.push({ name, from: last?.to ?? evaluations[0]?.step ?? 0, to });
  }
  return phases;
}
