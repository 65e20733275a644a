import type { TrainResult } from "@hone/core";
import type { StepRecord } from "../run-log/step-record.ts";

/** What happens in a run, in its order. */
export type RunEvent =
  /** Rollouts or training begin: `total` of them, or 1. */
  | { type: "began"; label: string; total: number }
  | { type: "progressed"; done: number; note: string }
  | { type: "evaluated"; label: string; metric: string; score: number | null; seconds: number }
  /** `step` is the number of steps trained so far; a batch that trained nothing leaves it where it was. */
  | ({ type: "step-ended"; step: number; steps: number; metric: string } & {
      record: StepRecord;
      result: TrainResult;
    });
