import { inspect } from "node:util";
import { HoneError, type RolloutException, type Trajectory } from "@hone/core";
import { longestTimerMs, throwIfAborted, unlessAborted } from "@hone/transport";
import type { CallCounter } from "./rollout-context.ts";

export type RolloutEnd =
  | {
      trajectory: Trajectory;
      calls: CallCounter;
      /** How often the server had been away when it began, where that is known. */
      outages?: number | undefined;
      exception?: undefined;
    }
  | { exception: RolloutException; error: unknown; trajectory?: undefined };

/** Ends when the agent does, or when the signal aborts. An agent that ignores the signal is not waited for. */
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
    Math.min(timeoutMs, longestTimerMs),
  );
  try {
    throwIfAborted(signal);
    return await unlessAborted(Promise.resolve().then(work), signal);
  } finally {
    clearTimeout(timer);
  }
}

/** If the error is a timeout, adds to its message which model call the rollout was in. */
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
  const stack = stackOf(error);
  const rest = { duringCall, ...(stack === null ? {} : { stack }) };
  if (HoneError.isInstance(error)) {
    return { rolloutId, type: error.code, message: error.message, ...rest };
  }
  if (error instanceof Error) {
    return { rolloutId, type: error.name, message: error.message, ...rest };
  }
  return { rolloutId, type: typeof error, message: shown(error), ...rest };
}

/** A text for what an agent threw and is no Error: a string as it is, anything else as Node shows it. */
function shown(error: unknown): string {
  return typeof error === "string" ? error : inspect(error, { depth: 2, breakLength: Infinity });
}

/** Causes that are shown below a stack. */
const mostCauses = 4;

function stackOf(error: unknown): string | null {
  const stacks: string[] = [];
  for (let at = error; at instanceof Error && stacks.length <= mostCauses; at = at.cause) {
    stacks.push(at.stack ?? `${at.name}: ${at.message}`);
  }
  return stacks.length > 0 ? stacks.join("\n[cause]: ") : null;
}

/** The error of a call after the rollout's end. `reason` is what ended the rollout, if it did not end by itself. */
export function rolloutOver(reason?: unknown): HoneError {
  const known = HoneError.isInstance(reason) ? reason : null;
  if (known?.code === "rollout_closed" || known?.code === "rollout_mismatch") return known;
  const why = known ? ` ${known.message}` : "";
  return new HoneError(
    `The rollout is over: its model takes no more calls. Await every call before the rollout returns.${why}`,
    { code: "rollout_closed" },
  );
}
