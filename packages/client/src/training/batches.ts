import {
  HoneError,
  mulberry32,
  refuseUnknownOptions,
  shuffledIndices,
  requireNumber,
} from "@hone/core";
import { isRunCursor, supervisedRuns, withRuns } from "./supervised-cursor.ts";
import type { RunCursor } from "./supervised-cursor.ts";
import { requireApart } from "./scenarios.ts";

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
   * the only reason was that rewards did not differ, it ends with a warning instead. @default 8
   */
  maxIdleBatches?: number | undefined;
  /** @default the seed of the run that is resumed, else 0 */
  seed?: number | undefined;
  /** A new order each epoch. @default true */
  shuffle?: boolean | undefined;
  /** Scenarios of the evaluation. A scenario that is also among those to train on is an error. */
  heldOut?: readonly unknown[] | undefined;
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
}

export const defaultMaxIdleBatches = 8;

/**
 * Continues at the cursor. If the number of scenarios, the seed or the shuffling has changed, the rest of the epoch
 * is no longer valid: a new epoch begins, and the steps count on.
 *
 * Each batch counts as a step at first. `next(n)` says that n of them turned out to have trained nothing.
 */
export function* planBatches<Scenario>(
  scenarios: readonly Scenario[],
  options: BatchesOptions,
  committed: unknown,
): Generator<Batch<Scenario>, void, number | undefined> {
  // A supervised run that is started again has to find what it did before these batches.
  let cursor: BatchCursor = withRuns(
    firstCursor(scenarios.length, options, readCursor(committed)),
    supervisedRuns(committed),
  );
  let order = orderOf(cursor);
  while (cursor.trained < options.steps) {
    const { step, trained, epoch } = cursor;
    const picked: Scenario[] = [];
    let { position } = cursor;
    let nextEpoch = epoch;
    while (picked.length < options.groupsPerStep) {
      if (position >= scenarios.length) {
        nextEpoch += 1;
        position = 0;
        order = orderOf({ ...cursor, epoch: nextEpoch });
      }
      picked.push(scenarios[order[position] as number] as Scenario);
      position += 1;
    }
    const next = { ...cursor, epoch: nextEpoch, position, step: step + 1, trained: trained + 1 };
    const steps = options.steps;
    const idle = (yield { scenarios: picked, step, trained, steps, epoch, cursor: next }) ?? 0;
    cursor = { ...next, trained: next.trained - idle };
  }
}

/** The cursor to commit if the batch trains nothing: its scenarios are used up, but none of the run's steps. */
export function untrainedCursor(cursor: BatchCursor): BatchCursor {
  return { ...cursor, trained: (cursor.trained ?? cursor.step) - 1 };
}

/** Steps that the run of this cursor has trained; 0 if none is committed. */
export function trainedSteps(committed: unknown): number {
  return readCursor(committed)?.trained ?? 0;
}

export function checkBatchesOptions(scenarios: readonly unknown[], options: BatchesOptions): void {
  refuseUnknownOptions("batches()", options, [
    "groupsPerStep",
    "steps",
    "maxIdleBatches",
    "seed",
    "shuffle",
    "heldOut",
    "signal",
  ]);
  requireApart(scenarios, options.heldOut ?? []);
  if (scenarios.length === 0) {
    throw new HoneError("batches() needs at least one scenario.", {
      code: "invalid_config",
      param: "scenarios",
    });
  }
  for (const [name, value, least] of [
    ["groupsPerStep", options.groupsPerStep, 1],
    ["steps", options.steps, 0],
    ["maxIdleBatches", options.maxIdleBatches ?? defaultMaxIdleBatches, 1],
    ["seed", options.seed ?? 0, 0],
  ] as const) {
    requireNumber(name, value, { whole: true, least });
  }
}

function firstCursor(
  size: number,
  options: BatchesOptions,
  committed: BatchCursor | null,
): BatchCursor {
  const seed = options.seed ?? committed?.seed ?? 0;
  const shuffle = options.shuffle ?? committed?.shuffle ?? true;
  if (!committed) return { epoch: 0, position: 0, seed, step: 0, trained: 0, size, shuffle };
  const same = committed.size === size && committed.seed === seed && committed.shuffle === shuffle;
  if (same) return committed;
  return { ...committed, epoch: committed.epoch + 1, position: 0, seed, size, shuffle };
}

function readCursor(value: unknown): BatchCursor | null {
  if (value === null || value === undefined || isRunCursor(value)) return null;
  const cursor = value as Partial<Record<keyof BatchCursor, unknown>>;
  const isCount = (field: unknown) => Number.isSafeInteger(field) && (field as number) >= 0;
  const ours =
    typeof value === "object" &&
    [cursor.epoch, cursor.position, cursor.seed, cursor.step, cursor.size].every(isCount) &&
    typeof cursor.shuffle === "boolean" &&
    (cursor.position as number) <= (cursor.size as number);
  // Older cursors counted every batch as a step.
  const { trained = cursor.step } = cursor;
  if (ours && isCount(trained) && (trained as number) <= (cursor.step as number)) {
    return { ...(value as BatchCursor), trained: trained as number };
  }
  throw new HoneError(
    "The model's cursor was not made by batches(): go on with the loop that made it, or use another model name.",
    { code: "invalid_config", param: "cursor" },
  );
}

/** The order follows from seed and epoch, so that a resumed epoch has the order that it began with. */
export function orderOf({
  size,
  seed,
  epoch,
  shuffle,
}: Pick<BatchCursor, "size" | "seed" | "epoch" | "shuffle">): number[] {
  if (!shuffle) return Array.from({ length: size }, (_, index) => index);
  const mixed = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(epoch + 1, 0xc2b2ae35);
  return shuffledIndices(size, mulberry32(mixed));
}
