import { HoneError, type OperationResult, policyName } from "@hone/core";
import { fault } from "../faults/fault.ts";
import type { Manifest } from "../policies/checkpoints.ts";
import { releaseRollouts } from "../rollouts/records.ts";
import type { OperationContext } from "./context.ts";
import type { NewEvent } from "./events.ts";
import { type OperationRecord, updateOperation } from "./records.ts";

const publishAttempts = 3;
/** A worker that does not come back in this time is not coming back. */
export const restartTimeoutMs = 10 * 60_000;
/** An engine that answers with an error may be one that is just dying. */
const deathNoticeMs = 15_000;

export type Emit = (event: NewEvent) => void;

/** Runs a stage and reports how long it took. */
export async function timed<T>(emit: Emit, stage: string, run: () => Promise<T> | T): Promise<T> {
  const begin = performance.now();
  const value = await run();
  emit({ type: "stage", stage, seconds: (performance.now() - begin) / 1000 });
  return value;
}

/** Where a policy's folder is, in words that do not depend on this machine. */
export function checkpointName(model: string, step: number): string {
  return `models/${model}/policies/${step}`;
}

/** The cursor after an operation: only a train operation that names one moves it. */
export function cursorAfter(
  context: OperationContext,
  record: OperationRecord,
  { trained }: { trained: boolean } = { trained: true },
): unknown {
  const { op } = record;
  const cursor =
    op.type === "train" ? (trained ? op.cursor : (op.untrainedCursor ?? op.cursor)) : undefined;
  if (cursor !== undefined) return cursor;
  return context.models.require(record.model).cursor;
}

/**
 * The commit point: the folder gets its name, then one transaction makes N+1 the newest learnt policy, moves
 * the cursor, fixes which rollouts were trained, and stores the result.
 */
export async function commitPolicy(
  context: OperationContext,
  record: OperationRecord,
  staged: { staging: string; files: readonly string[]; metrics: Manifest["metrics"]; seed: number },
  emit: Emit,
): Promise<void> {
  const { models, checkpoints } = context;
  const model = models.require(record.model);
  const step = model.learnt + 1;
  // No commit leads to it, so a folder of that name was left by an operation that failed.
  await checkpoints.remove(model.name, step);
  await checkpoints.commit(
    staged.staging,
    {
      model: model.name,
      step,
      parent: model.learnt,
      operationId: record.id,
      base: model.base,
      lora: model.lora,
      seed: staged.seed,
      cursor: cursorAfter(context, record),
      metrics: staged.metrics,
    },
    staged.files,
  );
  try {
    await recordPolicy(context, record, step, staged.metrics, emit);
  } catch (error) {
    await checkpoints.remove(model.name, step);
    throw error;
  }
}

/** The database's half of the commit; recovery calls it alone where the folder already has its name. */
export async function recordPolicy(
  context: OperationContext,
  record: OperationRecord,
  step: number,
  metrics: Manifest["metrics"],
  emit: Emit,
): Promise<void> {
  record.result = resultOf(context, record, step, metrics);
  const trained = trainedRollouts(record);
  fault("checkpoint.before-transaction");
  await context.models.commitStep(record.model, step, record.id, cursorAfter(context, record), [
    ...releaseRollouts(record.id, trained),
    updateOperation(record),
  ]);
  fault("checkpoint.after-transaction");
  noteTrained(context, record, trained);
  emitCommitted(record, step, emit);
}

export function emitCommitted(record: OperationRecord, step: number, emit: Emit): void {
  emit({ type: "committed", step, checkpoint: checkpointName(record.model, step) });
}

/**
 * The rollouts that a step used up: the rewarded members of the groups that trained, those that were only in
 * the baseline included. Members of groups that compared nothing are free for another operation.
 */
function trainedRollouts(record: OperationRecord): string[] {
  if (!record.work) return [];
  const { work, outcome } = record.work;
  return work.rollouts
    .filter(({ group }) => outcome.groups[group]?.reason === null)
    .map(({ id }) => id);
}

/** Rollouts that an operation names. */
export function namedRollouts(record: OperationRecord): string[] {
  if (record.op.type !== "train") return [];
  return record.op.groups.flatMap(({ rollouts }) => rollouts.map(({ rolloutId }) => rolloutId));
}

export function noteTrained(
  context: OperationContext,
  record: OperationRecord,
  trained: readonly string[],
): void {
  const used = new Set(trained);
  context.rollouts.noteClaims(
    namedRollouts(record).filter((id) => !used.has(id)),
    null,
  );
}

function resultOf(
  context: OperationContext,
  record: OperationRecord,
  step: number,
  metrics: Manifest["metrics"],
): OperationResult {
  const common = {
    step,
    policy: policyName(record.model, step),
    checkpoint: checkpointName(record.model, step),
  };
  if (record.op.type !== "train") return { type: "import", ...common };
  const outcome = record.work?.outcome;
  return {
    type: "train",
    trained: true,
    ...common,
    reasons: outcome?.reasons ?? {},
    groups: outcome?.groups ?? [],
    metrics,
    warnings: [...(outcome?.warnings ?? []), ...mismatchWarnings(metrics, context.base.dtype)],
  };
}

function mismatchWarnings(metrics: Manifest["metrics"], dtype: string): string[] {
  const mean = metrics["sampling/sampling_logp_difference/mean"] ?? 0;
  const limit = dtype === "float32" ? 1e-3 : 0.1;
  if (mean <= limit) return [];
  return [
    `The engine's logprobs differ from the trainer's by ${mean.toPrecision(3)} on average (${limit} is usual at most in ${dtype}).`,
  ];
}

/** served = learnt, through restarts of the engine; what then still fails is `publish_failed`. */
export async function publishNewest(
  context: OperationContext,
  record: OperationRecord,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const { live, models, ready } = context;
  const model = models.require(record.model);
  for (let attempt = 1; ; attempt++) {
    const generation = ready.generation();
    try {
      await timed(emit, "publish", () => live.publish(model.name));
      break;
    } catch (cause) {
      const code = HoneError.isInstance(cause) ? cause.code : null;
      const restarts = code === "engine_unavailable" || code === "worker_unavailable";
      const retry =
        attempt < publishAttempts &&
        (restarts || code === "engine_error") &&
        (await ready.after(generation, restarts ? restartTimeoutMs : deathNoticeMs, signal));
      if (retry) continue;
      throw new HoneError(
        `${policyName(model.name, model.learnt)} was learnt but cannot be served: ${(cause as Error).message} ` +
          `${policyName(model.name, Math.max(0, model.served))} stays. Submit a "publish" operation to try again.`,
        { code: "publish_failed", cause },
      );
    }
  }
  const step = model.served;
  emit({ type: "published", step, policy: policyName(model.name, step) });
}
