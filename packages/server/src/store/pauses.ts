import { setImmediate as nextTurn } from "node:timers/promises";

/** How long a loop may run before others have their turn. @unit ms */
const turnMs = 8;

/** For loops over many rows: lets sockets and timers have their turn between two rows. */
export interface Pauses {
  /** Resolves at once while the turn is young. */
  due(): Promise<void>;
}

export function createPauses(): Pauses {
  let began = performance.now();
  return {
    async due() {
      if (performance.now() - began < turnMs) return;
      await nextTurn();
      began = performance.now();
    },
  };
}
