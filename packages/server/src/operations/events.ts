import type { OperationEvent } from "@hone/core";
import type { Clock } from "../ports/clock.ts";
import type { Statement, Store } from "../store/store.ts";

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
/** An event before the log gives it its number and time. */
export type NewEvent = DistributiveOmit<OperationEvent, "seq" | "at">;

export interface EventLog {
  /**
   * Resolves when the event is on disk, together with what else has to be true from then on; followers see
   * it then, after `written` ran, and never one that could be lost.
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

export function createEventLog(store: Store, clock: Clock): EventLog {
  const lastSeq = new Map<string, number>();
  const followers = new Map<string, Set<() => void>>();

  function nextSeq(operationId: string): number {
    const stored = (): number => {
      const row = store.get(
        "SELECT max(seq) AS seq FROM operation_events WHERE operation_id = ?",
        operationId,
      ) as { seq: number | null };
      return row.seq ?? 0;
    };
    const last = lastSeq.get(operationId) ?? stored();
    lastSeq.set(operationId, last + 1);
    return last + 1;
  }

  return {
    async append(operationId, given, written, also = []) {
      const event = { ...given, seq: nextSeq(operationId), at: clock() };
      await store.write([
        {
          sql: "INSERT INTO operation_events (operation_id, seq, data) VALUES (?, ?, ?)",
          args: [operationId, event.seq, JSON.stringify(event)],
        },
        ...also,
      ]);
      written?.();
      for (const wake of followers.get(operationId) ?? []) wake();
      if (event.type === "ended") lastSeq.delete(operationId);
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
      try {
        while (!signal.aborted) {
          woken = false;
          const rows = store.all(
            "SELECT data FROM operation_events WHERE operation_id = ? AND seq > ? ORDER BY seq",
            operationId,
            last,
          ) as { data: string }[];
          for (const { data } of rows) {
            const event = JSON.parse(data) as OperationEvent;
            yield event;
            last = event.seq;
            if (event.type === "ended") return;
          }
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
