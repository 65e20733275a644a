import { HoneError } from "@hone/core";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { PolicyLease, PolicyRouter } from "../ports/rollouts.ts";

/** A ledger in memory, with everything that was written to it. */
export interface MemoryLedger extends Ledger {
  readonly all: LedgerCompletion[];
  of(rolloutId: string): LedgerCompletion[];
}

export function createMemoryLedger(): MemoryLedger {
  const all: LedgerCompletion[] = [];
  const of = (rolloutId: string) => all.filter((entry) => entry.rolloutId === rolloutId);
  return {
    all,
    of,
    list: async (rolloutId) => of(rolloutId),
    append: async (completions) => void all.push(...completions),
    async markDelivered(ids) {
      for (const entry of all) if (ids.includes(entry.id)) entry.delivered = true;
    },
    async markUnreceived(ids) {
      for (const entry of all) if (ids.includes(entry.id)) entry.delivered = false;
    },
  };
}

/** Every rollout exists; `m` is an alias of one policy. Counts the leases that are out. */
export interface MemoryRouter extends PolicyRouter {
  readonly leases: number;
}

export function createMemoryRouter(
  policy: string,
  chatTemplateKwargs: PolicyLease["chatTemplateKwargs"] = null,
): MemoryRouter {
  let leases = 0;
  function lease(modelRef: string, rolloutId: string | null): PolicyLease {
    if (modelRef !== "m" && modelRef !== policy) {
      throw new HoneError(`There is no model "${modelRef}".`, {
        code: "model_not_found",
        param: "model",
      });
    }
    leases++;
    return { policy, rolloutId, group: null, chatTemplateKwargs, release: () => void leases-- };
  }
  return {
    get leases() {
      return leases;
    },
    leaseForRollout: async (_key, rolloutId, modelRef) => lease(modelRef, rolloutId),
    leaseForModel: async (_key, modelRef) => lease(modelRef, null),
    listModels: async () => [
      { id: "m", createdAt: 1_700_000_000_000 },
      { id: policy, createdAt: 1_700_000_000_000 },
    ],
  };
}
