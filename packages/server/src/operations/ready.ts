/** A worker that has not come back after this time is taken for lost. @unit ms */
export const restartTimeoutMs = 10 * 60_000;
/** How long to wait for news of an engine that answered with an error, because it may be dying. @unit ms */
export const deathNoticeMs = 15_000;

/** Counts how often the engine and the worker have come up. */
export interface ReadyGate {
  generation(): number;
  opened(): void;
  /** Resolves to true when the processes have come up after `generation`, to false when they did not in time. */
  after(generation: number, timeoutMs: number, signal: AbortSignal): Promise<boolean>;
}

export function createReadyGate(): ReadyGate {
  let current = 0;
  const waiting = new Set<() => void>();
  return {
    generation: () => current,
    opened() {
      current++;
      for (const wake of waiting) wake();
    },
    async after(generation, timeoutMs, signal) {
      if (current > generation || signal.aborted) return current > generation;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          waiting.delete(done);
          resolve();
        };
        const timer = setTimeout(done, timeoutMs);
        signal.addEventListener("abort", done);
        waiting.add(done);
      });
      return current > generation;
    },
  };
}
