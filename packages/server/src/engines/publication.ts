import { setTimeout as delay } from "node:timers/promises";

/** Of an engine that is the first to be ready, the time that others may take at least, as a multiple. */
const patience = 2;

/**
 * Waits for engines that are getting ready. Resolves when all have tried, or when one is ready and the deadline is past:
 * those that are not ready then are late. Nobody is late while none is ready: all would stay on what they have. And where
 * the first one took long, so may the others: as long again.
 *
 * @param isOneReady whether one is ready that is none of these: the deadline runs from now on, whatever these do
 */
export async function untilReadyOrLate(
  tries: readonly Promise<{ ready: boolean }>[],
  deadlineMs: number,
  isOneReady = false,
): Promise<void> {
  const began = performance.now();
  const over = new AbortController();
  const late = async (): Promise<void> => {
    const first = tries.map((one) => one.then(({ ready }) => ready || Promise.reject()));
    try {
      await Promise.any(isOneReady ? [...first, Promise.resolve(true)] : first);
    } catch {
      return; // None is ready, and so all have tried.
    }
    const tookMs = performance.now() - began;
    const leftMs = Math.max(deadlineMs, patience * tookMs) - tookMs;
    await delay(leftMs, undefined, { signal: over.signal, ref: false }).catch(() => undefined);
  };
  await Promise.race([Promise.all(tries), late()]);
  over.abort();
}
