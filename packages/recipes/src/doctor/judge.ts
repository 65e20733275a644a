import type { TrajectoryGroup } from "@hone/core";
import type { JudgedOnce } from "./statistics.ts";

/** What became of one group at one judge, judged several times. */
export interface GroupJudging {
  /** The valid judgings. A score is null where the judge does not apply to that output. */
  judgings: readonly (Omit<JudgedOnce, "scores"> & { scores: readonly (number | null)[] })[];
  /** How often the judge was asked, or would have been. 0 if all outputs are alike and nothing can be compared. */
  asked: number;
  /** Judgings that were valid only after the judge was told what was wrong. */
  repaired: number;
  /** What all of it cost; null if nobody says. */
  costUsd: number | null;
  /** Wall time of one judging. */
  seconds: number;
  /** Why a judging is missing. */
  error: string | null;
}

/** A judge as the doctor examines it: RULER over a model, a reward model, or a function. */
export interface ExaminedJudge {
  label: string;
  /** Where its scale ends, if it does. */
  scale: { low: number; high: number } | null;
  /** Judges the group `passes` times, in other orders where it sees one. A judging that fails is left out, and said. */
  judge(
    group: TrajectoryGroup,
    how: { passes: number; seed: number; signal: AbortSignal },
  ): Promise<GroupJudging>;
}

/** What a judge of one's own is: scores for the outputs, in the order in which they are given. */
export type JudgeFunction = (
  trajectories: TrajectoryGroup["trajectories"],
  how: { scenario: unknown; signal: AbortSignal },
) => readonly (number | null)[] | Promise<readonly (number | null)[]>;
