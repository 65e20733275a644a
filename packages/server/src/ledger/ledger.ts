import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { Statement, Store } from "../store/store.ts";
import { type CompletionRow, insertCompletion, readCompletion } from "./records.ts";

export interface StoredLedger extends Ledger {
  /** How many completions a rollout has. */
  count(rolloutId: string): number;
  /**
   * Writes again what could not be written of these rollouts. Throws `disk_full` while it still cannot:
   * a rollout that ends or trains is on disk with all its completions.
   */
  settle(rolloutIds: readonly string[]): Promise<void>;
  /** Drops the rollouts from memory for which `keep` is false. */
  retain(keep: (rolloutId: string) => boolean): Promise<void>;
}

/**
 * Append-only. Memory holds what was read or written lately and is what readers see; the database follows
 * through the store's queue, so that no answer waits for the disk. A later write to the same rollout (its
 * end, its training) is queued behind, and is durable only together with all that came before.
 */
export function createLedger(store: Store, log: Logger): StoredLedger {
  const memory = new Map<string, LedgerCompletion[]>();
  const rolloutOf = new Map<string, string>();

  function load(rolloutId: string): LedgerCompletion[] {
    const known = memory.get(rolloutId);
    if (known) return known;
    const byId = new Map<string, LedgerCompletion>();
    const rows = store.all(
      "SELECT * FROM completions WHERE rollout_id = ? ORDER BY seq",
      rolloutId,
    ) as CompletionRow[];
    for (const row of rows) {
      const parent = row.parent_id === null ? null : (byId.get(row.parent_id) ?? null);
      byId.set(row.id, readCompletion(row, parent));
    }
    const completions = [...byId.values()];
    memory.set(rolloutId, completions);
    for (const { id } of completions) rolloutOf.set(id, rolloutId);
    return completions;
  }

  // Statements that the disk refused; they are tried again before anything is built on them.
  const unwritten = new Map<string, Statement[]>();

  function write(rolloutId: string, statements: readonly Statement[]): void {
    store.write(statements).catch((error: unknown) => {
      unwritten.set(rolloutId, [...(unwritten.get(rolloutId) ?? []), ...statements]);
      log.error({ rollout: rolloutId, err: error }, "the ledger could not be written");
    });
  }

  function setDelivered(ids: readonly string[], delivered: boolean): Promise<void> {
    fault("ledger.before-delivered");
    for (const id of ids) {
      const known = memory.get(rolloutOf.get(id) ?? "");
      const index = known?.findIndex((completion) => completion.id === id) ?? -1;
      const completion = known?.[index];
      if (known && completion) known[index] = { ...completion, delivered };
    }
    for (const id of ids) {
      write(rolloutOf.get(id) ?? "", [
        { sql: "UPDATE completions SET delivered = ? WHERE id = ?", args: [Number(delivered), id] },
      ]);
    }
    fault("ledger.after-delivered");
    return Promise.resolve();
  }

  return {
    list: (rolloutId) => Promise.resolve([...load(rolloutId)]),

    count(rolloutId) {
      const known = memory.get(rolloutId);
      if (known) return known.length;
      const row = store.get(
        "SELECT count(*) AS n FROM completions WHERE rollout_id = ?",
        rolloutId,
      ) as { n: number };
      return row.n;
    },

    append(completions) {
      fault("ledger.before-append");
      const statements = completions.map((given) => {
        const known = load(given.rolloutId);
        // Two answers of one rollout may end at once: their order is the one in which they came here.
        const completion: LedgerCompletion = { ...given, seq: known.length };
        const parent = known.find(({ id }) => id === completion.parentId) ?? null;
        if (completion.parentId !== null && !parent) {
          throw new HoneError(
            `Completion ${completion.id} continues ${completion.parentId}, which rollout ${completion.rolloutId} does not have.`,
            { code: "internal_error" },
          );
        }
        const statement = insertCompletion(completion, parent);
        known.push(completion);
        rolloutOf.set(completion.id, completion.rolloutId);
        return statement;
      });
      const [first] = completions;
      if (first) write(first.rolloutId, statements);
      fault("ledger.after-append");
      return Promise.resolve();
    },

    markDelivered: (ids) => setDelivered(ids, true),
    markUnreceived: (ids) => setDelivered(ids, false),

    async settle(rolloutIds) {
      // A write that is still under way may yet fail.
      await store.flush();
      for (const id of rolloutIds) {
        const statements = unwritten.get(id);
        if (!statements) continue;
        unwritten.delete(id);
        try {
          await store.write(statements);
        } catch (error) {
          unwritten.set(id, [...statements, ...(unwritten.get(id) ?? [])]);
          throw error;
        }
      }
    },

    async retain(keep) {
      const idle = [...memory].filter(([id]) => !keep(id));
      if (idle.length === 0) return;
      const before = idle.map(([id, completions]) => [id, [...completions]] as const);
      // What is dropped must be readable from the database.
      await store.flush();
      for (const [id, completions] of before) {
        // A call that ended meanwhile has written again: the next time, then.
        const now = memory.get(id);
        const same =
          now?.length === completions.length && now.every((c, i) => c === completions[i]);
        if (!same || unwritten.has(id)) continue;
        memory.delete(id);
        for (const completion of completions) rolloutOf.delete(completion.id);
      }
    },
  };
}
