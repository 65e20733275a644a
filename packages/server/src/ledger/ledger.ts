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
   * Writes rollouts again of which something could not be written: these, or all of them without ids. Throws
   * `disk_full` if it still cannot, because a rollout that ends or trains must be on disk with all its
   * completions.
   */
  settle(rolloutIds?: readonly string[]): Promise<void>;
  /** Drops the rollouts from memory for which `keep` is false. */
  retain(keep: (rolloutId: string) => boolean): Promise<void>;
}

interface Known {
  /** All completions, except those whose parent was lost. */
  completions: LedgerCompletion[];
  /** The next number. It is larger than that of every row, including rows that are left out. */
  nextSeq: number;
}

/**
 * The ledger is append-only. Readers see what memory holds, which is what was read or written lately. The
 * database follows through the store's queue, so that no answer waits for the disk. A later write to the same
 * rollout (its end, its training) is queued behind, and becomes durable only together with everything before
 * it.
 */
export function createLedger(store: Store, log: Logger): StoredLedger {
  const memory = new Map<string, Known>();
  const rolloutOf = new Map<string, string>();
  // Rollouts of which the disk refused something. Nothing more of them is written until all of it is written
  // again from memory, because a row is of no use without the one before it.
  const unwritten = new Set<string>();

  function load(rolloutId: string): Known {
    const known = memory.get(rolloutId);
    if (known) return known;
    const byId = new Map<string, LedgerCompletion>();
    const orphans: string[] = [];
    const rows = store.all(
      "SELECT * FROM completions WHERE rollout_id = ? ORDER BY seq",
      rolloutId,
    ) as CompletionRow[];
    for (const row of rows) {
      const parent = row.parent_id === null ? null : (byId.get(row.parent_id) ?? null);
      // Its prompt begins with its parent's ids. Without the parent the prompt cannot be put together.
      if (row.parent_id !== null && !parent) orphans.push(row.id);
      else byId.set(row.id, readCompletion(row, parent));
    }
    if (orphans.length > 0) {
      log.error(
        { rollout: rolloutId, completions: orphans },
        "completions continue one that the ledger does not have: the server ended before it could be written. They do not train",
      );
    }
    const loaded = { completions: [...byId.values()], nextSeq: (rows.at(-1)?.seq ?? -1) + 1 };
    memory.set(rolloutId, loaded);
    for (const id of byId.keys()) rolloutOf.set(id, rolloutId);
    return loaded;
  }

  function write(rolloutId: string, statements: readonly Statement[]): void {
    if (unwritten.has(rolloutId)) return;
    store.write(statements).catch((error: unknown) => {
      unwritten.add(rolloutId);
      log.error({ rollout: rolloutId, err: error }, "the ledger could not be written");
    });
  }

  async function writeAgain(rolloutId: string): Promise<void> {
    while (unwritten.has(rolloutId)) {
      const { completions } = load(rolloutId);
      const written = [...completions];
      const byId = new Map(written.map((completion) => [completion.id, completion]));
      await store.write(
        written.map((completion) =>
          insertCompletion(
            completion,
            byId.get(completion.parentId ?? "") ?? null,
            // Some of its rows may be in the database already, with older values.
            "INSERT OR REPLACE",
          ),
        ),
      );
      // Completions that were added meanwhile have not been written at all.
      if (isSame(written, completions)) unwritten.delete(rolloutId);
    }
  }

  /** Null if there is no such completion. */
  function ownerOf(id: string): string | null {
    const known = rolloutOf.get(id);
    if (known !== undefined) return known;
    // An answer can end after its rollout was dropped from memory.
    const row = store.get("SELECT rollout_id FROM completions WHERE id = ?", id);
    return (row as { rollout_id: string } | undefined)?.rollout_id ?? null;
  }

  function setDelivered(ids: readonly string[], delivered: boolean): Promise<void> {
    fault("ledger.before-delivered");
    for (const id of ids) {
      const rolloutId = ownerOf(id);
      if (rolloutId === null) continue;
      const { completions } = load(rolloutId);
      const index = completions.findIndex((completion) => completion.id === id);
      const completion = completions[index];
      if (!completion) continue;
      completions[index] = { ...completion, delivered };
      write(rolloutId, [
        { sql: "UPDATE completions SET delivered = ? WHERE id = ?", args: [Number(delivered), id] },
      ]);
    }
    fault("ledger.after-delivered");
    return Promise.resolve();
  }

  return {
    list: (rolloutId) => Promise.resolve([...load(rolloutId).completions]),

    count(rolloutId) {
      const known = memory.get(rolloutId);
      if (known) return known.completions.length;
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
        const completion: LedgerCompletion = { ...given, seq: known.nextSeq };
        const parent = known.completions.find(({ id }) => id === completion.parentId) ?? null;
        if (completion.parentId !== null && !parent) {
          throw new HoneError(
            `Completion ${completion.id} continues ${completion.parentId}, which rollout ${completion.rolloutId} does not have.`,
            { code: "internal_error" },
          );
        }
        const statement = insertCompletion(completion, parent);
        known.completions.push(completion);
        known.nextSeq++;
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
      // A write that is still under way may fail, and would then have to be repeated from memory.
      await store.flush();
      const failures: unknown[] = [];
      for (const id of rolloutIds ?? [...unwritten]) {
        // A rollout that is refused must not keep others from the disk.
        await writeAgain(id).catch((error: unknown) => failures.push(error));
      }
      if (failures.length > 0) throw failures[0];
    },

    async retain(keep) {
      const idle = [...memory].filter(([id]) => !keep(id));
      if (idle.length === 0) return;
      const before = idle.map(([id, { completions }]) => [id, [...completions]] as const);
      // What is dropped must be readable from the database.
      await store.flush();
      for (const [id, completions] of before) {
        // A request ended meanwhile and wrote to this rollout again. The next call drops it.
        const now = memory.get(id)?.completions;
        if (!now || !isSame(completions, now) || unwritten.has(id)) continue;
        memory.delete(id);
        for (const completion of completions) rolloutOf.delete(completion.id);
      }
    },
  };
}

function isSame(before: readonly LedgerCompletion[], now: readonly LedgerCompletion[]): boolean {
  return now.length === before.length && now.every((completion, i) => completion === before[i]);
}
