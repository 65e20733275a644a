import type { OperationEvent } from "@hone/client";

/** Adds up where a run's wall time goes. */
export interface StageClock {
  time<Result>(stage: string, work: () => Promise<Result>): Promise<Result>;
  /** The stages of a training step that the server tells of: parts of "training". */
  onEvent(event: OperationEvent): void;
  /** Stage → seconds. */
  seconds(): Record<string, number>;
}

export function createStageClock(now: () => number = () => performance.now()): StageClock {
  const spent = new Map<string, number>();
  const add = (stage: string, seconds: number) =>
    spent.set(stage, (spent.get(stage) ?? 0) + seconds);
  return {
    async time(stage, work) {
      const began = now();
      try {
        return await work();
      } finally {
        add(stage, (now() - began) / 1000);
      }
    },
    onEvent(event) {
      if (event.type === "stage") add(`training: ${event.stage}`, event.seconds);
    },
    seconds: () => Object.fromEntries(spent),
  };
}
