import pLimit from "p-limit";
import type { LimitFunction } from "p-limit";

/** What all calls to one judge share: how many at once, and until when none. */
export interface Lane {
  limit: LimitFunction;
  /** Time before which the provider wants no call. On the clock of `performance.now()`. */
  quietUntil: number;
  /** Set once the provider has refused a form of structured output. */
  structuredOutput: "json_object" | "none" | null;
}

const lanes = new Map<string, Lane>();

/** The judge's own lane, apart from the rollouts' limits. `concurrency` is that of the latest call. */
export function laneOf(baseURL: string, model: string, concurrency: number): Lane {
  const key = JSON.stringify([baseURL, model]);
  let lane = lanes.get(key);
  if (!lane) {
    lane = { limit: pLimit(concurrency), quietUntil: 0, structuredOutput: null };
    lanes.set(key, lane);
  }
  lane.limit.concurrency = concurrency;
  return lane;
}
