import { HoneError } from "@hone/core";
import { deathNoticeMs, type ReadyGate, restartTimeoutMs } from "../ready.ts";

/** What was asked may be what they die of. */
const maxRestarts = 3;

/**
 * Asks the worker or the engine, and again once it is back: one that is away is waited for, and so is one that
 * answered with an error because it was dying. One that has too much to do is asked again after a while.
 */
export async function onceThere<T>(
  ready: ReadyGate,
  signal: AbortSignal,
  ask: () => Promise<T>,
  {
    noticeMs = deathNoticeMs,
    onWait,
  }: {
    noticeMs?: number;
    /** Hears of each failure after which it is asked again, and for how long it will be yet. @unit ms */
    onWait?: (error: HoneError, leftMs: number) => void;
  } = {},
): Promise<T> {
  const givesUpAt = Date.now() + restartTimeoutMs;
  let restarts = 0;
  for (;;) {
    const generation = ready.generation();
    try {
      return await ask();
    } catch (error) {
      const code = HoneError.isInstance(error) ? error.code : null;
      const leftMs = givesUpAt - Date.now();
      const waits = code === "worker_unavailable" || code === "engine_unavailable";
      if (waits && HoneError.isInstance(error) && leftMs > 0) onWait?.(error, leftMs);
      if (code === "worker_unavailable") {
        if (!(await ready.after(generation, restartTimeoutMs, signal))) throw error;
        restarts++;
      } else if (code === "engine_unavailable" || code === "engine_error") {
        const restarted = await ready.after(generation, noticeMs, signal);
        if (restarted) restarts++;
        else if (code === "engine_error" || signal.aborted || Date.now() > givesUpAt) throw error;
      } else if (HoneError.isInstance(error) && code === "engine_busy") {
        await ready.after(generation, error.retryAfterMs ?? noticeMs, signal);
        if (signal.aborted || Date.now() > givesUpAt) throw error;
      } else throw error;
      if (restarts >= maxRestarts) throw error;
    }
  }
}
