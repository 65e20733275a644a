import { type CompletionTraining, HoneError, type TrainOp } from "@hone/core";
import type { Model } from "../../policies/models.ts";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import type { RolloutRecord } from "../../rollouts/records.ts";
import { createPauses } from "../../store/pauses.ts";
import type { OperationContext } from "../context.ts";
import type { Claim } from "./kind.ts";
import { referenceFolder } from "./reference-folder.ts";
import { checkGiven } from "./taught.ts";
import { findTeacher } from "./teacher.ts";
import { answerIdOf } from "../../conversation/response-id.ts";

type GivenCompletions = Readonly<Record<string, CompletionTraining>>;

/** Everything about a train operation that can be refused before it is queued. */
export async function claimRewarded(
  context: OperationContext,
  keyId: string,
  model: Model,
  op: TrainOp,
): Promise<Claim[]> {
  requireInContext(context, op.config);
  referenceFolder(context, model.name, referenceOf(op.config));
  if (op.config.type === "custom") {
    const { name, options } = op.config;
    await context.trainer.checkObjective({ name, options });
  }
  await findTeacher(context, model, op.config);
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
    for (const [r, { rolloutId, reward, completions }] of group.rollouts.entries()) {
      await pauses.due();
      const member = `op.groups[${g}].rollouts[${r}]`;
      const param = `${member}.rolloutId`;
      const record = requireRollout(context, keyId, rolloutId, param);
      checkTrainable(record, model.name, reward, named.has(rolloutId), param);
      if (completions !== undefined) {
        await requireCompletions(context, rolloutId, completions, `${member}.completions`);
        requireRewardsFit(op.config, completions, `${member}.completions`);
      }
      named.set(rolloutId, { record, reward });
    }
  }
  await checkGiven(context, op);
  return [...named.values()];
}

/** What is said of single completions, by their ids in the ledger. A response has the id of all its choices. */
export function namedCompletions(
  made: readonly Pick<LedgerCompletion, "id">[],
  given: GivenCompletions | undefined,
): Map<string, CompletionTraining> {
  const named = new Map<string, CompletionTraining>();
  for (const [key, training] of Object.entries(given ?? {}))
    for (const { id } of made) if (isNamed(id, key)) named.set(id, training);
  return named;
}

function isNamed(id: string, key: string): boolean {
  const answer = answerIdOf(key);
  return id === answer || (answer.includes("_") && id.startsWith(`${answer}_`));
}

async function requireCompletions(
  { ledger, store }: OperationContext,
  rolloutId: string,
  given: GivenCompletions,
  param: string,
): Promise<void> {
  await store.flush();
  const made = await ledger.list(rolloutId);
  const unknown = Object.keys(given).find((key) => !made.some(({ id }) => isNamed(id, key)));
  if (unknown === undefined) return;
  throw new HoneError(
    `The rollout "${rolloutId}" has no completion "${unknown.slice(0, 80)}". Name one by the id of a turn of its trajectory, or of the response that the agent got.`,
    { code: "invalid_request", param: `${param}.${unknown.slice(0, 80)}` },
  );
}

/** A completion's reward needs the baseline and the scale that its rollout's had. */
function requireRewardsFit(
  { type }: TrainOp["config"],
  given: GivenCompletions,
  param: string,
): void {
  const [id] = Object.entries(given).find(([, { reward }]) => reward !== undefined) ?? [];
  if (id === undefined || (type !== "custom" && type !== "distill")) return;
  throw new HoneError(
    `Rewards of single completions are not for objectives of type "${type}", whose advantages are made otherwise. Give an advantage.`,
    { code: "invalid_request", param: `${param}.${id}.reward` },
  );
}

/** What the KL is measured to, of objectives that have the option. */
export function referenceOf(config: TrainOp["config"]): number | "base" | undefined {
  return "reference" in config ? config.reference : undefined;
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
