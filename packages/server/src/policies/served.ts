import { HoneError, policyName } from "@hone/core";
import type { Models } from "./models.ts";

/** Throws unless the step was served once. Then it can be sampled from, and is loaded again if necessary. */
export function requireServed(models: Models, name: string, step: number, param: string): void {
  const model = models.require(name);
  const policy = models.policy(name, step);
  if (policy && policy.removedAt !== null) throw removedPolicy(name, step, param);
  if (step <= model.served && policy) return;
  throw new HoneError(
    `${policyName(name, step)} is not served. The newest is ${policyName(name, Math.max(model.served, 0))}.`,
    { code: "policy_not_found", param },
  );
}

export function removedPolicy(name: string, step: number, param: string): HoneError {
  return new HoneError(
    `${policyName(name, step)} is no more: retention removed it. Name a newer policy; the server keeps those ` +
      "that are pinned (`hone pin`), and with `serve --keep` more of the newest.",
    { code: "policy_not_found", param },
  );
}
