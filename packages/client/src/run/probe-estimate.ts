import type { RunSettings } from "./run-options.ts";
import type { ProbeFigures } from "./probe-figures.ts";

/** What a probe has measured of time and money. */
export interface Measured {
  /** The task's `warmUp`; 0 where it trained nothing. @unit s */
  warmingUp: number;
  /** Playing its rollouts, at the run's own concurrency. @unit s */
  playing: number;
  /** Judging its groups once. @unit s */
  scoring: number;
  /** A training step on its rollouts; null where none was made. @unit s */
  training: number | null;
  /** What a judge's calls for its groups cost, as far as it tells; null where nothing does. @unit US dollars */
  judgeUsd: number | null;
}

/** A whole run, reckoned from the probe. Lengths change while a model learns, so this is no more than a beginning. */
export interface Estimate {
  steps: number;
  rollouts: number;
  /** Of the evaluations among them. */
  evaluationRollouts: number;
  /** Read and sampled. */
  promptTokens: number;
  completionTokens: number;
  hours: number;
  /** False where no training step was measured: its time is missing in `hours`. */
  withTraining: boolean;
  /** Of the machine, by its price; of the judge, by what its calls told. Null where a price is not known. */
  machineUsd: number | null;
  judgeUsd: number | null;
}

type Planned = Pick<
  RunSettings,
  "steps" | "groupsPerStep" | "groupSize" | "heldOut" | "verdict" | "evalEvery" | "evalHeldOut"
>;

export function estimateOf(
  figures: ProbeFigures,
  measured: Measured,
  settings: Planned,
  usdPerHour: number | undefined,
): Estimate {
  const { steps, groupsPerStep, groupSize, heldOut, verdict, evalEvery, evalHeldOut } = settings;
  const played = Math.max(1, figures.rollouts + figures.failed);
  const trainingRollouts = steps * groupsPerStep * groupSize;
  const looks = verdict === "greedy" ? 2 : 1;
  const between = evalEvery > 0 ? Math.max(0, Math.ceil(steps / evalEvery) - 1) : 0;
  // A run answers once more after its warm-up.
  const ends = 2 * looks + (measured.warmingUp > 0 ? 1 : 0);
  const evaluationRollouts = ends * heldOut + between * Math.min(heldOut, evalHeldOut);
  const rollouts = trainingRollouts + evaluationRollouts;
  const seconds =
    measured.warmingUp +
    (measured.playing / played) * rollouts +
    (measured.scoring / played) * trainingRollouts +
    ((measured.training ?? 0) / played) * trainingRollouts;
  const hours = seconds / 3600;
  return {
    steps,
    rollouts,
    evaluationRollouts,
    promptTokens: Math.round(figures.length.promptTokens * rollouts),
    completionTokens: Math.round(figures.length.completionTokens * rollouts),
    hours,
    withTraining: measured.training !== null,
    machineUsd: usdPerHour === undefined ? null : usdPerHour * hours,
    judgeUsd:
      measured.judgeUsd === null
        ? null
        : (measured.judgeUsd / Math.max(1, figures.groups)) * steps * groupsPerStep,
  };
}
