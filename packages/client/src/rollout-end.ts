import { HoneError, type RolloutException, type Trajectory } from "@hone/core";
import { abortError, throwIfAborted } from "./transport.ts";

export type RolloutEnd =
  | { trajectory: Trajectory; exception?: undefined }
  | { exception: RolloutException; error: unknown; trajectory?: undefined };

/** Ends when the agent does, or when the signal aborts: an agent that ignores it is left behind. */
export async function withinTime<T>(
  signal: AbortSignal,
  ending: AbortController,
  timeoutMs: number,
  work: () => T | Promise<T>,
): Promise<T> {
  const timer = setTimeout(
    () =>
      ending.abort(
        new HoneError(`The rollout took longer than its ${timeoutMs} ms (timeoutMs).`, {
          code: "timeout",
        }),
      ),
    timeoutMs,
  );
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortError(signal));
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    throwIfAborted(signal);
    const running = Promise.resolve().then(work);
    running.catch(() => {});
    return await Promise.race([running, aborted]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Names the call in the message of a timeout. */
export function withCall(error: unknown, call: number | null): unknown {
  if (call === null || !HoneError.isInstance(error) || error.code !== "timeout") return error;
  return new HoneError(`${error.message} It was in model call ${call}.`, {
    code: "timeout",
    cause: error,
  });
}

export function describe(
  error: unknown,
  rolloutId: string | null,
  duringCall: number | null,
): RolloutException {
  if (HoneError.isInstance(error)) {
    return { rolloutId, type: error.code, message: error.message, duringCall };
  }
  if (error instanceof Error) {
    return { rolloutId, type: error.name, message: error.message, duringCall };
  }
  return { rolloutId, type: typeof error, message: String(error), duringCall };
}

export function rolloutOver(): HoneError {
  return new HoneError("The rollout is over: its model takes no more calls.", {
    code: "rollout_closed",
  });
}
