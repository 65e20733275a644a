import { HoneError, policyName } from "@hone/core";
import type { OperationContext } from "../context.ts";

/** For the worker: the folder of the policy that a loss or a metric measures against; none for the base. */
export function referenceFolder(
  { models, checkpoints }: Pick<OperationContext, "models" | "checkpoints">,
  model: string,
  reference: number | string | null | undefined,
): string | undefined {
  if (typeof reference !== "number") return undefined;
  const policy = models.policy(model, reference);
  if (policy?.removedAt === null) return checkpoints.path(model, reference);
  const name = policyName(model, reference);
  throw new HoneError(
    policy
      ? `The reference ${name} was removed. Pin a policy that is to be a reference, or take "base".`
      : `There is no policy ${name} to be the reference. Name one that the model has, or take "base".`,
    { code: "policy_not_found", param: "op.config.reference" },
  );
}
