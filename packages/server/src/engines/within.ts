import { setTimeout as delay } from "node:timers/promises";

/** Resolves as the promise does, or to `late` where it takes longer: whoever asked goes on without it. */
export async function within<T>(limitMs: number, promise: Promise<T>, late: T): Promise<T> {
  const over = new AbortController();
  const { signal } = over;
  try {
    return await Promise.race([promise, delay(limitMs, late, { signal, ref: false })]);
  } finally {
    over.abort();
  }
}
