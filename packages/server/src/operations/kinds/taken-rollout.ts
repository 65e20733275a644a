import { HoneError } from "@hone/core";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import type { OperationContext } from "../context.ts";

/** What a rollout's agent was answered. It is learnt from as often as wanted: nobody claims it. */
export async function takenRollout(
  { base, ledger, models, rollouts }: OperationContext,
  keyId: string,
  id: string,
): Promise<readonly LedgerCompletion[]> {
  const record = rollouts.require(keyId, id);
  if (record.mode === "eval") {
    throw new HoneError(
      `the rollout "${id}" was made for evaluation and is never trained. Make it with mode "train".`,
      { code: "eval_rollout", param: "rolloutId" },
    );
  }
  const made = models.find(record.model)?.base;
  if (made !== base.name) {
    throw new HoneError(
      `the rollout "${id}" was sampled from the base "${made}", whose tokens mean something else to "${base.name}". Give its conversation instead.`,
      { code: "base_mismatch", param: "rolloutId" },
    );
  }
  return await ledger.list(id);
}
