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
 * One that waits need not wait for those before it to hear that it will not run. One that runs hears of its abort by
 * a signal, and ends when its kind heeds it; past the commit point that is too late. The server's end leaves it
 * running: the next start puts it here as `running`, and its turn goes on with it.
 */
export interface OperationQueue {
  /** Behind the others of its model. */
  add(record: OperationRecord): void;
  find(id: string): OperationRecord | undefined;
  /** Those that are not over, in their order; of one model or of all. */
  unfinished(model?: string): OperationRecord[];
  /** The abort is on disk when it resolves; what waits is over as well, unless its end cannot be written. */
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
  /** An abort on its way: to the disk, then to the end of what waits. */
  aborting: Promise<void> | null;
}

export function createQueue(options: {
  /** From where it stands to its end; resolves without one only when the server ends. */
  run: (record: OperationRecord, signal: AbortSignal) => Promise<void>;
  /** Writes the end of one that never began, if it can be written. */
  endUnbegun: (record: OperationRecord) => Promise<void>;
  /** Writes that it is to be aborted. Where it rejects nothing was heard, and it can be asked for again. */
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
