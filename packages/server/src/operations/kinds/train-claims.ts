import { HoneError, type TrainOp } from "@hone/core";
import type { Model } from "../../policies/models.ts";
import type { RolloutRecord } from "../../rollouts/records.ts";
import { createPauses } from "../../store/pauses.ts";
import type { OperationContext } from "../context.ts";
import type { Claim } from "./kind.ts";
import { findTeacher } from "./teacher.ts";

/** Everything about a train operation that can be refused before it is queued. */
export async function claimRewarded(
  context: OperationContext,
  keyId: string,
  model: Model,
  op: TrainOp,
): Promise<Claim[]> {
  requireInContext(context, op.config);
  if (op.config.type === "custom") {
    const { name, options } = op.config;
    await context.trainer.checkObjective({ name, options });
  }
  await findTeacher(context, op.config);
  const groups = new Set<string>();
  const named = new Map<string, Claim>();
  const pauses = createPauses();
  for (const [g, group] of op.groups.entries()) {
    if (groups.has(group.id)) {
      throw new HoneError(`The group "${group.id}" is in the operation twice. Name each once.`, {
        code: "invalid_request",
        param: `op.groups[${g}].id`,
      });
    }
    groups.add(group.id);
    for (const [r, { rolloutId, reward }] of group.rollouts.entries()) {
      await pauses.due();
      const param = `op.groups[${g}].rollouts[${r}].rolloutId`;
      const record = requireRollout(context, keyId, rolloutId, param);
      checkTrainable(record, model.name, reward, named.has(rolloutId), param);
      named.set(rolloutId, { record, reward });
    }
  }
  return [...named.values()];
}

/** A limit above the context would let through what the trainer refuses. */
export function requireInContext(
  { base }: OperationContext,
  { maxSequenceTokens: longest }: { maxSequenceTokens?: number | undefined },
): void {
  if (longest === undefined || longest <= base.maxModelLen) return;
  throw new HoneError(
    `maxSequenceTokens is ${longest}, but the base takes ${base.maxModelLen} tokens. Leave it out for that.`,
    { code: "invalid_request", param: "op.config.maxSequenceTokens" },
  );
}

function requireRollout(
  context: OperationContext,
  keyId: string,
  id: string,
  param: string,
): RolloutRecord {
  try {
    return context.rollouts.require(keyId, id);
  } catch (cause) {
    if (!HoneError.isInstance(cause)) throw cause;
    throw new HoneError(cause.message, { code: cause.code, param, cause });
  }
}

function checkTrainable(
  record: RolloutRecord,
  model: string,
  reward: number | null,
  twice: boolean,
  param: string,
): void {
  if (record.model !== model) {
    throw new HoneError(
      `The rollout "${record.id}" is of the model "${record.model}". Train it there, or name a rollout of "${model}".`,
      { code: "model_mismatch", param },
    );
  }
  if (record.mode === "eval") {
    throw new HoneError(
      `The rollout "${record.id}" was made for evaluation and is never trained. Make it with mode "train".`,
      { code: "eval_rollout", param },
    );
  }
  if (twice || record.trainedBy !== null) {
    const where = twice
      ? "twice in this operation"
      : `in the operation ${record.trainedBy} already`;
    throw new HoneError(
      `The rollout "${record.id}" is ${where}; a rollout trains once. Leave it out.`,
      {
        code: "already_trained",
        param,
      },
    );
  }
  if (record.status === "open" && reward === null) {
    throw new HoneError(
      `The rollout "${record.id}" is still open. Finish it with PATCH, or give its reward.`,
      { code: "rollout_open", param },
    );
  }
}
