import { pause, throwIfAborted, TimeLimitReached, withinLimit } from "@hone/transport";
import { JudgeError } from "./judge-error.ts";
import type { Lane } from "./lane.ts";

export interface RetryPlan {
  maxRetries: number;
  /** On the clock of `performance.now()`. */
  deadline: number;
  signal: AbortSignal | undefined;
  random: () => number;
}

/** A failed attempt: whether another may succeed, and how long the provider wants to be left alone. */
export class AttemptFailure extends Error {
  readonly error: JudgeError;
  readonly retryable: boolean;
  readonly retryAfterMs: number | null;

  constructor(error: JudgeError, options: { retryable: boolean; retryAfterMs: number | null }) {
    super(error.message, { cause: error });
    this.error = error;
    this.retryable = options.retryable;
    this.retryAfterMs = options.retryAfterMs;
  }
}

const firstPauseMs = 500;
const longestPauseMs = 20_000;
/** A request that runs into the deadline itself says more about it. */
const graceMs = 50;

/**
 * Attempts until one succeeds. Between them a random share of a doubling pause (full jitter), and never
 * less than the provider asked for; what it asked for holds for every call in the lane. The lane's
 * slot is held only while a request is under way.
 */
export async function withRetries<T>(
  lane: Lane,
  plan: RetryPlan,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let retry = 0; ; retry += 1) {
    try {
      const attempted = lane.limit(async () => {
        await pauseUntil(lane, plan);
        return await attempt();
      });
      return await inTime(attempted, plan);
    } catch (failure) {
      if (!(failure instanceof AttemptFailure)) throw failure;
      if (failure.retryAfterMs !== null) {
        lane.quietUntil = Math.max(lane.quietUntil, performance.now() + failure.retryAfterMs);
      }
      if (!failure.retryable || retry >= plan.maxRetries) throw failure.error;
      const jitter = plan.random() * Math.min(longestPauseMs, firstPauseMs * 2 ** retry);
      const pauseMs = Math.max(jitter, failure.retryAfterMs ?? 0);
      // No use in waiting for an attempt that may not be made.
      if (performance.now() + pauseMs >= plan.deadline) throw failure.error;
      await pause(pauseMs, plan.signal);
    }
  }
}

/** Ends the wait for a slot too, when the signal or the deadline says so. */
async function inTime<T>(promise: Promise<T>, { signal, deadline }: RetryPlan): Promise<T> {
  // Where the wait ends first, what becomes of the promise is nobody's concern.
  promise.catch(() => undefined);
  const left = Math.max(deadline - performance.now(), 0) + graceMs;
  try {
    return await withinLimit(left, signal, () => promise);
  } catch (error) {
    throw error instanceof TimeLimitReached ? pastDeadline() : error;
  }
}

function pastDeadline(): JudgeError {
  return new JudgeError(
    "The deadline passed before the judge answered. Raise deadlineMs or concurrency.",
    { failure: "timeout" },
  );
}

async function pauseUntil(lane: Lane, plan: RetryPlan): Promise<void> {
  while (lane.quietUntil > performance.now()) {
    if (lane.quietUntil >= plan.deadline) {
      throw new JudgeError(
        "The judge's provider wants no call before the deadline. Raise deadlineMs or lower concurrency.",
        { failure: "rate_limited" },
      );
    }
    await pause(lane.quietUntil - performance.now(), plan.signal);
  }
  throwIfAborted(plan.signal);
  throwIfPastDeadline(plan);
}

export function throwIfPastDeadline({ deadline }: RetryPlan): void {
  if (performance.now() >= deadline) throw pastDeadline();
}
