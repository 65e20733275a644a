import { HoneError, policyName } from "@hone/core";
import { fault } from "../faults/fault.ts";
import { precisionOf } from "../policies/base-of.ts";
import { checkpointName, type Manifest } from "../policies/checkpoints.ts";
import { releaseRollouts } from "../rollouts/records.ts";
import type { OperationContext } from "./context.ts";
import { type Emit, type Staged, timed } from "./kinds/kind.ts";
import { kindOf } from "./kinds/kinds.ts";
import { onceThere } from "./kinds/once-there.ts";
import { probeOf } from "./kinds/probe-of.ts";
import { type OperationRecord, updateOperation } from "./records.ts";

/**
 * The commit point: the folder gets its name, then one transaction makes N+1 the newest learnt policy, moves
 * the cursor, fixes which rollouts were trained, and stores the result.
 */
export async function commitPolicy(
  context: OperationContext,
  record: OperationRecord,
  { staging, files, metrics, seed, objective, teacher, cursor, ...staged }: Staged,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const { models, checkpoints } = context;
  const model = models.require(record.model);
  const step = model.learnt + 1;
  let manifest: Omit<Manifest, "version" | "files"> = {
    model: model.name,
    step,
    parent: model.learnt,
    operationId: record.id,
    base: model.base,
    precision: precisionOf(context.base),
    lora: model.lora,
    seed,
    ...(objective && { objective }),
    ...(teacher && { teacher }),
    cursor: cursor === undefined ? model.cursor : cursor,
    metrics,
  };
  try {
    const probe = staged.probe ?? (await probeOf(context, staging, emit, signal));
    manifest = { ...manifest, ...(probe && { probe }) };
    // The database has no N+1, so a folder of that name was left by an operation that failed.
    await checkpoints.remove(model.name, step);
    await checkpoints.commit(staging, manifest, files);
  } finally {
    await checkpoints.discard(staging);
  }
  try {
    await recordPolicy(context, record, manifest, emit);
  } catch (error) {
    await checkpoints.remove(model.name, step);
    throw error;
  }
}

/** The database's half of the commit. */
async function recordPolicy(
  context: OperationContext,
  record: OperationRecord,
  { step, metrics, cursor }: Pick<Manifest, "step" | "metrics" | "cursor">,
  emit: Emit,
): Promise<void> {
  const kind = kindOf(record);
  record.result = kind.result(context, record, step, metrics);
  const used = kind.used?.(record) ?? [];
  fault("checkpoint.before-transaction");
  await context.models.commitStep(record.model, step, record.id, cursor, [
    ...releaseRollouts(record.id, used),
    updateOperation(record),
  ]);
  fault("checkpoint.after-transaction");
  context.rollouts.noteReleased(record.id, used);
  emitCommitted(record, step, emit);
}

/** Completes a commit where the server died after the folder of N+1 got its name and before the database knew. */
export async function rollForward(
  context: OperationContext,
  record: OperationRecord,
  emit: Emit,
): Promise<void> {
  const { checkpoints, log } = context;
  if (record.fromStep === null || isCommitted(context, record)) return;
  const step = record.fromStep + 1;
  const manifest = await checkpoints.readManifest(record.model, step);
  if (manifest?.operationId !== record.id) return;
  try {
    await checkpoints.verify(record.model, step);
  } catch (error) {
    log.error({ operation: record.id, step, err: error }, "the step will be redone");
    return;
  }
  fault("recovery.before-transaction");
  log.info({ operation: record.id, step }, "completing a commit that a restart cut off");
  await recordPolicy(context, record, manifest, emit);
}

export function isCommitted({ models }: OperationContext, record: OperationRecord): boolean {
  if (record.fromStep === null) return false;
  return models.policy(record.model, record.fromStep + 1)?.operationId === record.id;
}

export function emitCommitted(record: OperationRecord, step: number, emit: Emit): void {
  emit({ type: "committed", step, checkpoint: checkpointName(record.model, step) });
}

/** Publishes the newest learnt policy. An engine that is away or late is waited for; other failures are `publish_failed`. */
export async function publishNewest(
  context: OperationContext,
  record: OperationRecord,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const { live, models, ready } = context;
  const model = models.require(record.model);
  try {
    // One that was only late may be ready the next time, and nothing tells when it is.
    await onceThere(ready, signal, () => timed(emit, "publish", () => live.publish(model.name)), {
      onWait: tellOfWait(policyName(model.name, model.learnt), emit),
    });
  } catch (cause) {
    throw new HoneError(
      `${policyName(model.name, model.learnt)} was learnt but cannot be served: ${(cause as Error).message} ` +
        `${policyName(model.name, Math.max(0, model.served))} stays. Submit a "publish" operation to try again.`,
      { code: "publish_failed", cause },
    );
  }
  const step = model.served;
  emit({ type: "published", step, policy: policyName(model.name, step) });
}

/** How often a wait is told of that has not changed. */
const tellWaitEveryMs = 60_000;

/** Warns what a publication waits for: at its beginning, when that changes, and once a minute. */
function tellOfWait(policy: string, emit: Emit): (error: HoneError, leftMs: number) => void {
  let told = { reason: "", at: -Infinity };
  return ({ message: reason }, leftMs) => {
    const at = performance.now();
    if (reason === told.reason && at - told.at < tellWaitEveryMs) return;
    told = { reason, at };
    const left = `${Math.ceil(leftMs / 60_000)} min`;
    emit({
      type: "warning",
      message: `${policy} is not served yet: ${reason} It is tried again for up to ${left}, also by a server that is started again meanwhile; until then the name means the policy before it.`,
    });
  };
}
