import { longestTimerMs } from "@hone/core";

/** The request took longer than its limit. */
export class TimeLimitReached extends Error {
  override readonly name = "TimeoutError";
}

/**
 * Work that ends at its limit, whatever came until then and whether or not it heeds the signal: headers
 * without a body, blank lines, a fetch that knows no signal.
 */
export async function withinLimit<T>(
  limitMs: number,
  caller: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController();
  let stop = (): void => undefined;
  const ended = new Promise<never>((_, reject) => {
    const end = (reason: unknown): void => {
      reject(reason);
      ending.abort(reason);
    };
    const onAbort = (): void => end(caller?.reason ?? new TimeLimitReached("Aborted."));
    const timer = setTimeout(
      () => end(new TimeLimitReached(`No answer within ${limitMs} ms.`)),
      Math.min(limitMs, longestTimerMs),
    );
    caller?.addEventListener("abort", onAbort, { once: true });
    stop = () => {
      clearTimeout(timer);
      caller?.removeEventListener("abort", onAbort);
    };
    if (caller?.aborted) onAbort();
  });
  try {
    const working = work(ending.signal);
    // Left behind, it may fail when it likes.
    working.catch(() => undefined);
    return await Promise.race([working, ended]);
  } finally {
    stop();
  }
}
