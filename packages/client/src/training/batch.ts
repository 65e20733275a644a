import type { CurriculumOptions, CurriculumShares, CurriculumState } from "./curriculum.ts";
import type { RunCursor } from "./supervised-cursor.ts";

export interface BatchesOptions {
  /** Scenarios of one step. Each of them becomes a group. */
  groupsPerStep: number;
  /**
   * Steps of the whole run, including those of earlier starts of the program. A run that has them all gives no
   * more batches. A batch that trained nothing does not count as a step.
   */
  steps: number;
  /**
   * How many batches in a row may train nothing. After so many the run stops with the error `nothing_trained`. If
   * the only reason was that rewards did not differ where there were any, it ends with a warning instead. @default 8
   */
  maxIdleBatches?: number | undefined;
  /** @default the seed of the run that is resumed, else 0 */
  seed?: number | undefined;
  /** A new order each epoch. @default true */
  shuffle?: boolean | undefined;
  /** Scenarios of the evaluation. A scenario that is also among those to train on is an error. */
  heldOut?: readonly unknown[] | undefined;
  /**
   * Draws scenarios by their success so far: first each once, in the order of the epoch, and then the more often the
   * more the success differed within their groups. @default false
   */
  curriculum?: boolean | CurriculumOptions | undefined;
  /** Aborting it ends the wait for a step that an earlier run left under way. */
  signal?: AbortSignal | undefined;
}

/** How far the run has come in its scenarios. The server commits it together with the step's weights. */
export interface BatchCursor extends RunCursor {
  readonly epoch: number;
  /** Scenarios of this epoch that are used up. */
  readonly position: number;
  readonly seed: number;
  /** Batches done, including those that trained nothing. */
  readonly step: number;
  /** Batches done that count as steps, which are those that trained something. */
  readonly trained: number;
  /** How many scenarios there were. If the number changes, the order of the epoch is no longer valid. */
  readonly size: number;
  readonly shuffle: boolean;
  /** What the curriculum knows of the scenarios. Absent: the run has none. */
  readonly curriculum?: CurriculumState | undefined;
}

export interface Batch<Scenario> {
  readonly scenarios: readonly Scenario[];
  /** The number of this batch in the run, from 0. Batches that trained nothing are counted too. */
  readonly step: number;
  /** Steps that the run has trained before this batch. `steps` limits this number. */
  readonly trained: number;
  readonly steps: number;
  readonly epoch: number;
  /** Pass the batch to `train`, so that this cursor is committed together with the step. */
  readonly cursor: BatchCursor;
  /** What the curriculum did; null without one. */
  readonly curriculum: CurriculumShares | null;
  /**
   * Draws further scenarios, the next of the run, for this batch: `fillBatch` does. The cursor moves behind them.
   * After the next batch was dealt out it is an error.
   */
  draw(count: number): readonly Scenario[];
}
