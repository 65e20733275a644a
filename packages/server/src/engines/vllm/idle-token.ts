import type { Child } from "../../supervise/child.ts";
import type { Health } from "../../supervise/health.ts";

/** A token costs milliseconds, and what stands still is found so much later at most. */
const defaultEveryMs = 15_000;
/** More than a request may go without a step: whoever watches the engine ends it before. */
const timeoutMs = 120_000;

type ReadHealth = (child: Pick<Child, "baseURL">, signal?: AbortSignal) => Promise<Health>;

/**
 * Reads how far vLLM is, and has it asked for a token where it has had nothing to do for some time. Its API server answers
 * for a core that stands still, and without a request nothing tells that core from one that rests. Such a request is one
 * that waits for vLLM as any other, so what gets no token is found by its progress.
 *
 * @param ask resolves once the token is there; it is not asked again before
 */
export function askWhileIdle(
  read: ReadHealth,
  ask: (signal: AbortSignal) => Promise<unknown>,
  options: { everyMs?: number | undefined; now?: () => number } = {},
): ReadHealth {
  const { everyMs = defaultEveryMs, now = () => performance.now() } = options;
  let last = { baseURL: "", progress: -1, at: 0 };
  let isAsking = false;
  return async (child, signal) => {
    const health = await read(child, signal);
    const { baseURL } = child;
    const { phase, progress } = health;
    if (phase !== "idle" || baseURL !== last.baseURL || progress !== last.progress) {
      last = { baseURL, progress, at: now() };
    } else if (!isAsking && now() - last.at >= everyMs) {
      isAsking = true;
      last.at = now();
      ask(AbortSignal.timeout(timeoutMs))
        // Who watches it judges by its steps.
        .catch(() => undefined)
        .finally(() => (isAsking = false));
    }
    return health;
  };
}
