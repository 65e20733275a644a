/**
 * How long there has been work of which nothing got done. It rests while there is none and goes on from there: a client that
 * gives up and asks again does not set it back. Only what gets done does.
 */
export interface StillClock {
  /** Whether there is work, from now on. */
  hasWork(is: boolean): void;
  /** Some of it got done. */
  moved(): void;
  /** @unit ms */
  readonly ms: number;
}

/** @param now a clock that never goes back @unit ms */
export function createStillClock(now: () => number = () => performance.now()): StillClock {
  let before = 0;
  let since: number | null = null;
  return {
    hasWork(is) {
      if (is) {
        since ??= now();
      } else if (since !== null) {
        before += now() - since;
        since = null;
      }
    },
    moved() {
      before = 0;
      if (since !== null) since = now();
    },
    get ms() {
      return before + (since === null ? 0 : now() - since);
    },
  };
}
