import { HoneError } from "@hone/core";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import type { OperationContext } from "../context.ts";

/** What a rollout's agent was answered. It is learnt from as often as wanted: nobody claims it. */
export async function takenRollout(
  { rollouts, ledger }: OperationContext,
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
  return await ledger.list(id);
}
