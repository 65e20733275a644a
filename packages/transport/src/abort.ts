import { HoneError } from "@hone/core";

/** The longest time that a timer can be set to: a longer one would end at once. @unit ms */
export const longestTimerMs = 2 ** 31 - 1;

/** The work took longer than its limit. */
export class TimeLimitReached extends Error {
  override readonly name = "TimeoutError";
}

/** The reason of a signal as a HoneError; a reason that is one already (a timeout) is kept. */
export function abortError(signal: AbortSignal): HoneError {
  const reason: unknown = signal.reason;
  if (HoneError.isInstance(reason)) return reason;
  return new HoneError("Aborted by the caller's signal.", { code: "aborted", cause: reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** Waits. Throws as soon as the signal aborts. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const waited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, longestTimerMs));
  });
  try {
    await unlessAborted(waited, signal);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The promise, or the end of the wait for it when the signal aborts: the work itself goes on, and may fail
 * unheard. `errorOf`: what is thrown then. @default abortError
 */
export async function unlessAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  errorOf: (signal: AbortSignal) => Error = abortError,
): Promise<T> {
  if (!signal) return await promise;
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(errorOf(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * Work that ends at its limit with a TimeLimitReached, or with the caller's signal, whatever came until then
 * and whether or not it heeds its own signal: headers without a body, blank lines, a fetch that knows no signal.
 */
export async function withinLimit<T>(
  limitMs: number,
  caller: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  throwIfAborted(caller);
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(new TimeLimitReached(`No answer within ${limitMs} ms.`)),
    Math.min(limitMs, longestTimerMs),
  );
  const signal = caller ? AbortSignal.any([caller, limit.signal]) : limit.signal;
  try {
    // Later than the listener below, which is so the first to hear of the end.
    const working = Promise.resolve().then(() => work(signal));
    return await unlessAborted(working, signal, ({ reason }) =>
      reason instanceof TimeLimitReached ? reason : abortError(signal),
    );
  } finally {
    clearTimeout(timer);
  }
}
