import { setImmediate as afterTurn } from "node:timers/promises";

/** How long a loop may run before others have their turn. @unit ms */
const turnMs = 8;

/** For loops over many rows: lets sockets and timers have their turn between two rows. */
export interface Pauses {
  /** Resolves at once while the turn is young. */
  due(): Promise<void>;
}

/** Lets sockets and timers have their turn now, so that what follows does not add up with what was before. */
export function nextTurn(): Promise<void> {
  return afterTurn();
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
