import type { Logger } from "pino";
import { isOver, type OperationRecord } from "./records.ts";

/**
 * The operations of each model, one after the other. Where one of them stands:
 *
 *   waiting ── its turn ──▶ running ── its end is written ──▶ over, and in here no more
 *      │ ▲
 *      │ └──── it cannot be written ─────┐
 *      └──── abort ────▶ leaving ── its end is written ──▶ over
 *
 * A waiting operation can be aborted at once, without waiting for those before it. A running one gets the abort as a
 * signal and ends when its kind heeds the signal; past the commit point it is too late. When the server ends, a
 * running operation stays `running` in the database. The next start adds it here again, and its turn goes on with it.
 */
export interface OperationQueue {
  /** Adds an operation behind the others of its model. */
  add(record: OperationRecord): void;
  find(id: string): OperationRecord | undefined;
  /** The operations of one model, or of all, that are not over, in their order. */
  unfinished(model?: string): OperationRecord[];
  /** Resolves when the abort is on disk. A waiting operation is over then, unless its end cannot be written. */
  abort(id: string): Promise<void>;
  /** Resolves when nothing of the model runs. */
  idle(model: string): Promise<void>;
  start(): void;
  /** Stops without ending anything. */
  close(): Promise<void>;
}

interface Entry {
  readonly record: OperationRecord;
  readonly controller: AbortController;
  place: "waiting" | "leaving" | "running";
  /** The abort that is being written, and after that the end of an operation that waits. */
  aborting: Promise<void> | null;
}

export function createQueue(options: {
  /** Runs an operation to its end, from wherever it stands. Resolves without an end only when the server ends. */
  run: (record: OperationRecord, signal: AbortSignal) => Promise<void>;
  /** Writes the end of an operation that never began. If it cannot be written, nothing changes. */
  endUnbegun: (record: OperationRecord) => Promise<void>;
  /** Writes that it is to be aborted. If this rejects, the abort counts as not heard, and can be asked for again. */
  writeAbort: (record: OperationRecord) => Promise<void>;
  log: Logger;
}): OperationQueue {
  const { run, endUnbegun, writeAbort, log } = options;
  const entries = new Map<string, Entry>();
  const loops = new Map<string, Promise<void>>();
  const closed = new AbortController();
  let started = false;

  const nextOf = (model: string): Entry | undefined =>
    [...entries.values()].find(({ record }) => record.model === model);

  function kick(model: string): void {
    if (!started || closed.signal.aborted || loops.has(model)) return;
    const loop = workOff(model)
      .catch((error: unknown) =>
        log.error({ model, err: error }, "the operations of a model stopped"),
      )
      .finally(() => {
        loops.delete(model);
        if (nextOf(model)) kick(model);
      });
    loops.set(model, loop);
  }

  async function workOff(model: string): Promise<void> {
    for (let entry = nextOf(model); entry && !closed.signal.aborted; entry = nextOf(model)) {
      if (entry.place === "leaving") {
        await entry.aborting;
        continue;
      }
      entry.place = "running";
      await run(entry.record, entry.controller.signal);
      if (isOver(entry.record)) entries.delete(entry.record.id);
    }
  }

  async function heedAbort(entry: Entry): Promise<void> {
    const { record, controller } = entry;
    if (!record.abortRequested) await writeAbort(record);
    controller.abort();
    if (entry.place !== "waiting") return;
    entry.place = "leaving";
    try {
      await endUnbegun(record);
    } finally {
      entry.place = "waiting";
      if (isOver(record)) entries.delete(record.id);
    }
  }

  return {
    add(record) {
      const controller = new AbortController();
      if (record.abortRequested) controller.abort();
      const place = record.status === "queued" ? "waiting" : "running";
      entries.set(record.id, { record, controller, place, aborting: null });
      kick(record.model);
    },

    find: (id) => entries.get(id)?.record,
    unfinished: (model) =>
      [...entries.values()].flatMap(({ record }) =>
        isOver(record) || (model !== undefined && record.model !== model) ? [] : record,
      ),

    async abort(id) {
      const entry = entries.get(id);
      if (!entry || isOver(entry.record)) return;
      entry.aborting ??= heedAbort(entry).finally(() => void (entry.aborting = null));
      await entry.aborting;
    },

    idle: async (model) => loops.get(model),

    start() {
      started = true;
      for (const { record } of entries.values()) kick(record.model);
    },

    async close() {
      closed.abort();
      for (const { controller } of entries.values()) controller.abort();
      await Promise.all(loops.values());
    },
  };
}
