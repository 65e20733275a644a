import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError, policyName, type TrainOp, type TrainResult } from "@hone/core";
import { encodeBatch, planSelection, type Work, workConfig } from "../../batch/batch.ts";
import {
  type FilterGroup,
  type SelectedRollout,
  type Selection,
  selectForTraining,
} from "../../batch/filter.ts";
import { rewardMetrics } from "../../batch/reward-metrics.ts";
import { fault } from "../../faults/fault.ts";
import type { Model } from "../../policies/models.ts";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import { workerCode } from "../../ports/trainer.ts";
import { createPauses } from "../../store/pauses.ts";
import { commitPolicy, cursorAfter, type Emit, restartTimeoutMs, timed } from "../commit.ts";
import type { OperationContext } from "../context.ts";
import { type OperationRecord, updateOperation } from "../records.ts";

/** The worker's deaths after which an operation is believed to be their cause. */
const maxDeaths = 3;
const busyPauseMs = 500;

/** Everything up to the commit point. Returns false where there was nothing to train. */
export async function trainPolicy(
  context: OperationContext,
  record: OperationRecord,
  op: TrainOp,
  emit: Emit,
  signal: AbortSignal,
): Promise<boolean> {
  const completions = await timed(emit, "resolve", () => readCompletions(context, op));
  fault("operation.resolved");
  if (!record.work) {
    const model = context.models.require(record.model);
    const selection = await timed(emit, "filter", () => select(context, model, op, completions));
    emit({
      type: "filtered",
      reasons: selection.reasons,
      trainableRollouts: selection.trainableRollouts,
      tokens: selection.tokens,
    });
    if (selection.trainableRollouts === 0) {
      await endUntrained(context, record, selection, selection.rollouts, emit);
      return false;
    }
    await timed(emit, "plan", () => decideWork(context, record, op, model, selection, completions));
  }
  const stored = record.work;
  if (!stored) throw new HoneError("The operation has no plan.", { code: "internal_error" });
  for (const message of stored.outcome.warnings) emit({ type: "warning", message });
  try {
    await trainUntilCommitted(context, record, stored.work, completions, emit, signal);
  } catch (error) {
    // The members that are left lie exactly on their group's mean.
    if (workerCode(error) !== "nothing_to_train") throw error;
    await endUntrained(context, record, equalised(stored.outcome), stored.work.rollouts, emit);
    return false;
  }
  return true;
}

async function readCompletions(
  context: OperationContext,
  op: TrainOp,
): Promise<Map<string, LedgerCompletion>> {
  await context.store.flush();
  const completions = new Map<string, LedgerCompletion>();
  const pauses = createPauses();
  for (const { rollouts } of op.groups) {
    for (const { rolloutId } of rollouts) {
      await pauses.due();
      for (const completion of await context.ledger.list(rolloutId)) {
        completions.set(completion.id, completion);
      }
    }
  }
  return completions;
}

function select(
  context: OperationContext,
  model: Model,
  op: TrainOp,
  completions: ReadonlyMap<string, LedgerCompletion>,
): Selection {
  const byRollout = new Map<string, LedgerCompletion[]>();
  for (const completion of completions.values()) {
    const known = byRollout.get(completion.rolloutId);
    if (known) known.push(completion);
    else byRollout.set(completion.rolloutId, [completion]);
  }
  const groups: FilterGroup[] = op.groups.map((group) => ({
    id: group.id,
    failed: group.failed ?? null,
    members: group.rollouts.map(({ rolloutId, reward }) => ({
      rolloutId,
      reward,
      completions: byRollout.get(rolloutId) ?? [],
    })),
  }));
  return selectForTraining(groups, {
    ...op.config,
    step: model.learnt,
    maxSequenceTokens: op.config.maxSequenceTokens ?? context.base.maxModelLen,
  });
}

async function decideWork(
  context: OperationContext,
  record: OperationRecord,
  op: TrainOp,
  model: Model,
  selection: Selection,
  completions: ReadonlyMap<string, LedgerCompletion>,
): Promise<void> {
  const step = model.learnt + 1;
  const plan = planSelection(selection, completions, op.config);
  const warnings = [...selection.warnings];
  if (plan.length < op.config.optimizerSteps) {
    warnings.push(
      `optimizerSteps is ${op.config.optimizerSteps}, but only ${plan.length} group(s) train: ${plan.length} step(s) are taken.`,
    );
  }
  record.work = {
    work: {
      rollouts: selection.rollouts,
      completions: selection.completions,
      plan,
      config: workConfig(
        {
          operation_id: record.id,
          model: model.name,
          step,
          lora: model.lora,
          max_mismatch: op.config.maxMismatch ?? (context.base.dtype === "float32" ? 0.1 : 0.5),
          seed: seedOf(model, step),
        },
        op.config,
      ),
    },
    outcome: { groups: selection.groups, reasons: selection.reasons, warnings },
  };
  await context.store.write([updateOperation(record)]);
  fault("operation.planned");
}

/** The same for the same step of the same model: a redone operation draws the same numbers. */
function seedOf(model: Model, step: number): number {
  return createHash("sha256").update(`${model.seed}:${model.name}:${step}`).digest().readUInt32LE();
}

async function trainUntilCommitted(
  context: OperationContext,
  record: OperationRecord,
  work: Work,
  completions: ReadonlyMap<string, LedgerCompletion>,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const { checkpoints, ready } = context;
  for (;;) {
    let generation = ready.generation();
    let accepted = false;
    await checkpoints.requireSpace(record.model, work.config.step - 1);
    const staging = await checkpoints.stage(record.model, record.id, record.deaths);
    fault("operation.staged");
    try {
      const checkpoint = checkpoints.path(record.model, work.config.step - 1);
      const batch = await timed(emit, "pack", () =>
        encodeBatch(work, completions, { staging, checkpoint }),
      );
      const { metrics, files } = await context.trainTurn(() => {
        // The worker may have come up anew while this operation waited for its turn.
        generation = ready.generation();
        return runWorker(context, record, batch, emit, signal, () => {
          accepted = true;
          fault("operation.accepted");
        });
      });
      fault("operation.trained");
      if (signal.aborted) {
        throw new HoneError("The operation was aborted. Nothing of it was kept.", {
          code: "aborted",
        });
      }
      await timed(emit, "commit", () =>
        commitPolicy(context, record, { staging, files, metrics, seed: work.config.seed }, emit),
      );
      return;
    } catch (error) {
      await checkpoints.discard(staging);
      if (signal.aborted) throw error;
      if (workerCode(error) === "busy") {
        // An operation that was aborted ends with its micro-batch, which can be long.
        await delay(busyPauseMs, undefined, { signal }).catch(() => undefined);
        continue;
      }
      if (!HoneError.isInstance(error) || error.code !== "worker_unavailable") throw error;
      // One that was away has not died of this operation.
      if (accepted) await countDeath(context, record, error, emit);
      if (await ready.after(generation, restartTimeoutMs, signal)) continue;
      throw new HoneError("The worker did not come back. Restart the server, then train again.", {
        code: signal.aborted ? "aborted" : "train_failed",
        cause: error,
      });
    }
  }
}

async function countDeath(
  context: OperationContext,
  record: OperationRecord,
  cause: HoneError,
  emit: Emit,
): Promise<void> {
  record.deaths++;
  await context.store.write([updateOperation(record)]);
  if (record.deaths >= maxDeaths) {
    throw new HoneError(
      `The worker died ${record.deaths} times during this operation, perhaps for want of memory. ` +
        "Train with a smaller maxTokensPerMicroBatch or fewer rollouts; its log says more.",
      { code: "train_failed", cause },
    );
  }
  emit({
    type: "warning",
    message: `The worker died. The step begins again when it is back (death ${record.deaths} of ${maxDeaths}).`,
  });
}

function runWorker(
  context: OperationContext,
  record: OperationRecord,
  batch: Uint8Array,
  emit: Emit,
  signal: AbortSignal,
  onAccepted: () => void,
): ReturnType<OperationContext["trainer"]["train"]> {
  return context.trainer.train({
    operationId: record.id,
    batch,
    signal,
    onAccepted,
    onEvent(event) {
      if (event.event === "stage") {
        emit({ type: "stage", stage: event.stage, seconds: event.seconds });
      } else {
        fault("operation.micro-batch");
        const { done, total, tokens } = event;
        emit({ type: "progress", done, total, tokens });
      }
    },
  });
}

type Outcome = Pick<TrainResult, "groups" | "reasons" | "warnings">;

/** The outcome of an operation whose trainable members turned out to have no advantage. */
function equalised(outcome: Outcome): Outcome {
  const reasons = { ...outcome.reasons };
  const groups = outcome.groups.map((group) => {
    if (group.reason !== null) return group;
    reasons.zero_variance = (reasons.zero_variance ?? 0) + 1;
    return { ...group, reason: "zero_variance" as const, trainedRollouts: 0 };
  });
  return { groups, reasons, warnings: outcome.warnings };
}

/**
 * N stays, and the rollouts may be part of another operation. The cursor moves: these scenarios were tried,
 * and `batches` goes on with the next ones.
 */
async function endUntrained(
  context: OperationContext,
  record: OperationRecord,
  outcome: Outcome,
  rollouts: readonly SelectedRollout[],
  emit: Emit,
): Promise<void> {
  const model = context.models.require(record.model);
  for (const message of outcome.warnings) if (!record.work) emit({ type: "warning", message });
  record.work = null;
  record.result = {
    type: "train",
    trained: false,
    step: model.learnt,
    policy: policyName(model.name, model.learnt),
    reasons: outcome.reasons,
    groups: outcome.groups,
    metrics: rewardMetrics(rollouts),
    checkpoint: null,
    warnings: outcome.warnings,
  };
  await context.models.setCursor(model.name, cursorAfter(context, record, { trained: false }), [
    updateOperation(record),
  ]);
}
