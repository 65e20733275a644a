import type { TrainResult } from "@hone/core";
import type { StepRecord } from "../run-log/step-record.ts";
import type { Advice } from "../stopping/advise.ts";
import type { Alarm } from "../stopping/alarms.ts";
import type { Stopped } from "./watch-log.ts";

/** What happens in a run, in its order. */
export type RunEvent =
  /** The start has passed its checks, and `out` is the run's folder. A start that is refused has no event. */
  | { type: "started"; out: string }
  /** Rollouts or training begin: `total` of them, or 1. */
  | { type: "began"; label: string; total: number }
  | { type: "progressed"; done: number; note: string }
  | { type: "evaluated"; label: string; metric: string; score: number | null; seconds: number }
  /** `step` is the number of steps trained so far; a batch that trained nothing leaves it where it was. */
  | ({ type: "step-ended"; step: number; steps: number; metric: string } & {
      record: StepRecord;
      result: TrainResult;
    })
  /** Before the step trains; `file` shows the rollouts that raised it beside others. */
  | { type: "alarm"; alarm: Alarm; file: string }
  /** What the fixed evaluations say, where that has changed. `step` is the number of steps trained. */
  | { type: "advice"; step: number; advice: Advice }
  /** No further batch is played; the verdict comes next. */
  | { type: "stopped"; stopped: Stopped }
  /** A run that had started is over: by its summary, by an error or by its signal. */
  | { type: "ended" };
