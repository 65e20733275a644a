import { HoneError, policyName, type ResolvedTrainConfig } from "@hone/core";
import { baseInWords, baseOf, isSameBase } from "../../policies/base-of.ts";
import { adapterName } from "../../ports/live-set.ts";
import type { Model } from "../../policies/models.ts";
import type { OperationContext } from "../context.ts";

/** A policy of this server whose answers a step is to learn. */
export interface Teacher {
  model: string;
  step: number;
  /** Of its adapter: a step is not redone with another teacher. */
  sha256: string;
}

const param = "op.config.teacher";

/** The policy that the configuration names as it is now; null where the teacher is none, or there is no teacher. */
export async function findTeacher(
  context: OperationContext,
  student: Model,
  config: ResolvedTrainConfig,
): Promise<Teacher | null> {
  if (config.type !== "distill" || typeof config.teacher === "string") return null;
  const { model: name = student.name, policy } = config.teacher;
  const model = context.models.find(name);
  if (!model) {
    throw new HoneError(`There is no model "${name}" to be the teacher. Name one of this server.`, {
      code: "model_not_found",
      param: `${param}.model`,
    });
  }
  if (!isSameBase(baseOf(model), context.base)) {
    throw new HoneError(
      `The teacher "${name}" was made of the base ${baseInWords(baseOf(model))}, and this server serves ${baseInWords(context.base)}. Name a model of the same base.`,
      { code: "base_mismatch", param: `${param}.model` },
    );
  }
  const own = model === student ? model.learnt : model.served;
  const step = policy ?? Math.max(own, 0);
  const there = context.models.policy(name, step)?.removedAt === null;
  const sha256 = there ? await digestOf(context, name, step) : null;
  if (sha256 === null) throw noTeacher(context, name, step);
  return { model: name, step, sha256 };
}

/** The policy that the configuration names by its number; null where it is the one that is newest then, or there is none. */
export function namedTeacher(
  student: string,
  config: ResolvedTrainConfig,
): Pick<Teacher, "model" | "step"> | null {
  if (config.type !== "distill" || typeof config.teacher === "string") return null;
  const { model = student, policy } = config.teacher;
  return policy === undefined ? null : { model, step: policy };
}

/** The teacher's folder, which has to hold what it held when the step was planned. */
export async function teacherFolder(
  context: OperationContext,
  { model, step, sha256 }: Teacher,
): Promise<string> {
  const found = await digestOf(context, model, step);
  if (found === null) throw noTeacher(context, model, step);
  if (found !== sha256) {
    throw new HoneError(
      `The adapter of the teacher ${policyName(model, step)} is another than when this step was planned. Train again.`,
      { code: "train_failed", param },
    );
  }
  await context.checkpoints.verify(model, step);
  return context.checkpoints.path(model, step);
}

async function digestOf(
  { checkpoints }: OperationContext,
  model: string,
  step: number,
): Promise<string | null> {
  const manifest = await checkpoints.readManifest(model, step);
  return manifest?.files[adapterName]?.sha256 ?? null;
}

function noTeacher({ models }: OperationContext, model: string, step: number): HoneError {
  const name = policyName(model, step);
  return new HoneError(
    models.policy(model, step)
      ? `The teacher ${name} was removed. Pin a policy that is to be a teacher.`
      : `There is no policy ${name} to be the teacher. Name one that the model has.`,
    { code: "policy_not_found", param: `${param}.policy` },
  );
}
