import type { OperationEvent } from "@hone/core";
import type { Clock } from "../ports/clock.ts";
import { createPauses } from "../store/pauses.ts";
import type { Statement, Store } from "../store/store.ts";

const eventsPerRead = 100;

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
/** An event before the log gives it its number and time. */
export type NewEvent = DistributiveOmit<OperationEvent, "seq" | "at">;

export interface EventLog {
  /**
   * Appends an event. Some can be told of an operation only once (`started`, `filtered`, `committed`, `published`, a
   * warning in the same words). If a server that goes on with the operation tells one again, the event is dropped, and
   * the statements that come with it are still written. Resolves when event and statements are on disk; then `written`
   * runs, and then followers see the event, so they never see one that could be lost.
   */
  append(
    operationId: string,
    event: NewEvent,
    written?: () => void,
    also?: readonly Statement[],
  ): Promise<void>;
  /** Events after `seq`, and then those to come, until `ended` or the signal. */
  follow(operationId: string, after: number, signal: AbortSignal): AsyncGenerator<OperationEvent>;
}

/** What memory knows of an operation's log. It includes events that are about to be written. */
interface Written {
  lastSeq: number;
  said: Set<string | null>;
}

/** A key that is equal for events that say the same. Null for events that may come again when a step is redone. */
function keyOf(event: NewEvent): string | null {
  if (event.type === "stage" || event.type === "progress") return null;
  return event.type === "warning" ? `warning: ${event.message}` : event.type;
}

export function createEventLog(store: Store, clock: Clock): EventLog {
  const written = new Map<string, Written>();
  const followers = new Map<string, Set<() => void>>();

  function logOf(operationId: string): Written {
    const known = written.get(operationId);
    if (known) return known;
    const rows = store.all(
      "SELECT data FROM operation_events WHERE operation_id = ? ORDER BY seq",
      operationId,
    ) as { data: string }[];
    const events = rows.map(({ data }) => JSON.parse(data) as OperationEvent);
    const log: Written = { lastSeq: events.at(-1)?.seq ?? 0, said: new Set() };
    for (const event of events) log.said.add(keyOf(event));
    written.set(operationId, log);
    return log;
  }

  return {
    async append(operationId, given, onWritten, also = []) {
      const log = logOf(operationId);
      const key = keyOf(given);
      if (key !== null && log.said.has(key)) {
        await store.write(also);
        onWritten?.();
        return;
      }
      log.said.add(key);
      const event = { ...given, seq: ++log.lastSeq, at: clock() };
      try {
        await store.write([
          {
            sql: "INSERT INTO operation_events (operation_id, seq, data) VALUES (?, ?, ?)",
            args: [operationId, event.seq, JSON.stringify(event)],
          },
          ...also,
        ]);
      } catch (error) {
        log.said.delete(key);
        if (log.lastSeq === event.seq) log.lastSeq--;
        throw error;
      }
      onWritten?.();
      for (const wake of followers.get(operationId) ?? []) wake();
      if (event.type === "ended") written.delete(operationId);
    },

    async *follow(operationId, after, signal) {
      const newest = store.get(
        "SELECT data FROM operation_events WHERE operation_id = ? ORDER BY seq DESC LIMIT 1",
        operationId,
      ) as { data: string } | undefined;
      if (newest) {
        const event = JSON.parse(newest.data) as OperationEvent;
        if (event.type === "ended" && event.seq <= after) return;
      }
      let woken = false;
      let wake: () => void = () => undefined;
      const onEvent = (): void => {
        woken = true;
        wake();
      };
      const set = followers.get(operationId) ?? new Set();
      followers.set(operationId, set.add(onEvent));
      signal.addEventListener("abort", onEvent, { once: true });
      let last = after;
      const pauses = createPauses();
      try {
        while (!signal.aborted) {
          woken = false;
          const rows = store.all(
            "SELECT data FROM operation_events WHERE operation_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            operationId,
            last,
            eventsPerRead,
          ) as { data: string }[];
          for (const { data } of rows) {
            const event = JSON.parse(data) as OperationEvent;
            yield event;
            last = event.seq;
            if (event.type === "ended") return;
          }
          await pauses.due();
          if (rows.length === eventsPerRead) continue;
          if (!woken) await new Promise<void>((resolve) => void (wake = resolve));
        }
      } finally {
        set.delete(onEvent);
        if (set.size === 0) followers.delete(operationId);
        signal.removeEventListener("abort", onEvent);
      }
    },
  };
}
