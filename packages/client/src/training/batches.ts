import { HoneError, refuseUnknownOptions, requireNumber, wrongKind } from "@hone/core";
import { requireList } from "../argument-kinds.ts";
import { isRunCursor, supervisedRuns, withRuns } from "./supervised-cursor.ts";
import { isCurriculum, mostScenarios, newCurriculum, readCurriculum } from "./curriculum.ts";
import { Dealer } from "./dealer.ts";
import type { Batch, BatchCursor, BatchesOptions } from "./batch.ts";
import { requireApart } from "./scenarios.ts";

export const defaultMaxIdleBatches = 8;

/**
 * Continues at the cursor. If the number of scenarios, the seed, the shuffling or whether there is a curriculum has
 * changed, the rest of the epoch is no longer valid: a new epoch begins, and the steps count on.
 *
 * Each batch counts as a step at first. `next(n)` says that n of them turned out to have trained nothing.
 */
export function* planBatches<Scenario>(
  scenarios: readonly Scenario[],
  options: BatchesOptions,
  committed: unknown,
): Generator<Batch<Scenario>, void, number | undefined> {
  // A supervised run that is started again has to find what it did before these batches.
  const begun: BatchCursor = withRuns(
    firstCursor(scenarios.length, options, readCursor(committed)),
    supervisedRuns(committed),
  );
  const dealer = new Dealer(scenarios, options, begun);
  let { trained } = begun;
  while (trained < options.steps) {
    const batch = dealer.deal(trained);
    const idle = (yield batch) ?? 0;
    trained += 1 - idle;
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

/** Batches that are done, those included that trained nothing; 0 if none is committed. */
export function batchesDone(committed: unknown): number {
  return readCursor(committed)?.step ?? 0;
}

export function checkBatchesOptions(scenarios: readonly unknown[], options: BatchesOptions): void {
  refuseUnknownOptions("batches()", options, [
    "groupsPerStep",
    "steps",
    "maxIdleBatches",
    "seed",
    "shuffle",
    "heldOut",
    "curriculum",
    "signal",
  ]);
  if (readCurriculum("batches()", options.curriculum) && scenarios.length > mostScenarios) {
    throw new HoneError(
      `A curriculum takes at most ${mostScenarios} scenarios, and there are ${scenarios.length}. Give fewer, or do without it.`,
      { code: "invalid_config", param: "curriculum" },
    );
  }
  if (options.shuffle !== undefined && typeof options.shuffle !== "boolean") {
    // It is committed with each step, and the next start would not know it again.
    throw wrongKind("batches()", "true or false as shuffle", options.shuffle, "shuffle");
  }
  requireList("batches()", options.heldOut ?? [], "heldOut scenarios");
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
  const fresh = options.curriculum ? { curriculum: newCurriculum(size) } : {};
  if (!committed)
    return { epoch: 0, position: 0, seed, step: 0, trained: 0, size, shuffle, ...fresh };
  const same =
    committed.size === size &&
    committed.seed === seed &&
    committed.shuffle === shuffle &&
    (committed.curriculum !== undefined) === (fresh.curriculum !== undefined);
  if (same) return committed;
  const { curriculum: _, ...kept } = committed;
  return { ...kept, epoch: kept.epoch + 1, position: 0, seed, size, shuffle, ...fresh };
}

function readCursor(value: unknown): BatchCursor | null {
  if (value === null || value === undefined || isRunCursor(value)) return null;
  const cursor = value as Partial<Record<keyof BatchCursor, unknown>>;
  const isCount = (field: unknown) => Number.isSafeInteger(field) && (field as number) >= 0;
  const ours =
    typeof value === "object" &&
    [cursor.epoch, cursor.position, cursor.seed, cursor.step, cursor.size].every(isCount) &&
    typeof cursor.shuffle === "boolean" &&
    (cursor.position as number) <= (cursor.size as number) &&
    (cursor.curriculum === undefined || isCurriculum(cursor.curriculum, cursor.size));
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
