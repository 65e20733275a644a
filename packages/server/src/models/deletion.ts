import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { LimitFunction } from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Operations } from "../operations/operations.ts";
import type { Retention } from "../retention/retention.ts";
import type { Rollouts } from "../rollouts/rollouts.ts";
import type { Store } from "../store/store.ts";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models } from "../policies/models.ts";

/**
 * Ends models. The row of the deletion comes first: from then on nobody finds the model, its name stays taken, and
 * whatever interrupts the rest, the next start goes on with it. Files go next, then, in small parts and while
 * others are served, rollouts, completions and operations.
 */
export interface ModelDeletion {
  /**
   * Resolves when the model is gone and its files are; deleting it again does nothing. Throws `model_busy` while
   * operations, open rollouts or requests are on it, unless `force` ends those.
   */
  delete(name: string, force: boolean): Promise<void>;
  /** Goes on with deletions that the server's end cut off. */
  resume(): void;
  close(): Promise<void>;
}

const rolloutsAtOnce = 100;
const operationsAtOnce = 10;
const heldPauseMs = 500;
const retryMs = 5_000;

const someRollouts = (column: string): string =>
  `SELECT ${column} FROM rollouts INDEXED BY rollouts_by_model WHERE model = ?
   ORDER BY created_at, rowid LIMIT ${rolloutsAtOnce}`;
const someOperations = (column: string): string =>
  `SELECT ${column} FROM operations INDEXED BY operations_by_model WHERE model = ?
   ORDER BY key_id, number LIMIT ${operationsAtOnce}`;

export function createModelDeletion(options: {
  store: Store;
  models: Models;
  checkpoints: Checkpoints;
  live: LivePolicies;
  rollouts: Rollouts;
  operations: Operations;
  retention: Retention;
  /** Making and deleting models take turns by this. */
  serially: LimitFunction;
  log: Logger;
}): ModelDeletion {
  const { store, models, checkpoints, live, rollouts, operations, retention, log } = options;
  const clearing = new Map<string, Promise<void>>();
  const closed = new AbortController();

  async function remove(name: string, force: boolean): Promise<void> {
    if (force) await operations.abortAll(name);
    // Nothing is awaited between this check and the moment when memory forgets the model, so nothing can begin in between.
    const busy = [
      counted(operations.unfinished(name).length, "operation"),
      ...(force ? [] : [counted(rollouts.openOf(name).length, "open rollout")]),
      ...(force ? [] : [counted(live.requestsOf(name), "call under way", "calls under way")]),
    ].filter((text) => text !== null);
    if (busy.length > 0) throw inUse(name, busy, force);
    await models.delete(name, rollouts.failOpen(name, "ModelDeleted", "The model was deleted."));
    fault("deletion.after-row");
    log.info({ model: name }, "the model is deleted");
  }

  async function removeFiles(name: string): Promise<void> {
    await live.unloadModel(name);
    await checkpoints.removeModel(name);
    fault("deletion.after-files");
  }

  function clear(name: string): void {
    if (clearing.has(name) || closed.signal.aborted) return;
    const work = clearRows(name)
      .catch((error: unknown) => {
        if (closed.signal.aborted) return;
        log.error({ model: name, err: error }, "the rows of a deleted model cannot be removed yet");
        setTimeout(() => clear(name), retryMs).unref();
      })
      .finally(() => clearing.delete(name));
    clearing.set(name, work);
  }

  async function clearRows(name: string): Promise<void> {
    // Requests that were under way when the deletion was forced still write to the ledger.
    while (live.requestsOf(name) > 0) {
      await delay(heldPauseMs, undefined, { signal: closed.signal, ref: false });
    }
    const rolloutRows = [
      `DELETE FROM completions WHERE rollout_id IN (${someRollouts("id")})`,
      `DELETE FROM rollouts WHERE rowid IN (${someRollouts("rowid")})`,
    ];
    const operationRows = [
      `DELETE FROM operation_events WHERE operation_id IN (${someOperations("id")})`,
      `DELETE FROM operations WHERE number IN (${someOperations("number")})`,
    ];
    for (const [first, statements] of [
      ["SELECT 1 FROM rollouts WHERE model = ? LIMIT 1", rolloutRows],
      ["SELECT 1 FROM operations WHERE model = ? LIMIT 1", operationRows],
    ] as const) {
      while (store.get(first, name) !== undefined && !closed.signal.aborted) {
        await store.write(statements.map((sql) => ({ sql, args: [name], long: true })));
        fault("deletion.after-part");
      }
    }
    if (!closed.signal.aborted) await models.setCleared(name);
  }

  return {
    async delete(name, force) {
      // A step that is under way takes a while to end. Others may make models while this waits for it.
      if (force && models.find(name) !== null) {
        await operations.exclusively(name, () => operations.abortAll(name));
      }
      await options.serially(async () => {
        if (!models.isDeleted(name)) models.require(name);
        await operations.exclusively(name, () =>
          retention.exclusively(async () => {
            if (!models.isDeleted(name)) await remove(name, force);
            if (models.uncleared().includes(name)) await removeFiles(name);
          }),
        );
      });
      if (models.uncleared().includes(name)) clear(name);
    },

    resume() {
      for (const name of models.uncleared()) {
        removeFiles(name).then(
          () => clear(name),
          (error: unknown) =>
            log.error({ model: name, err: error }, "the files of a deleted model stay"),
        );
      }
    },

    async close() {
      closed.abort();
      await Promise.all(clearing.values());
    },
  };
}

function counted(count: number, one: string, many = `${one}s`): string | null {
  return count === 0 ? null : `${count} ${count === 1 ? one : many}`;
}

function inUse(name: string, busy: readonly string[], force: boolean): HoneError {
  const advice = force
    ? "They are ending: ask again in a moment."
    : "End them first, or delete it by force (`hone models rm --force`, `?force=true`), which ends them.";
  return new HoneError(`The model "${name}" is in use: ${busy.join(", ")}. ${advice}`, {
    code: "model_busy",
    param: "model",
  });
}
