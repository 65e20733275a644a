import { filtersSchema } from "@hone/core";

export const defaultMaxStaleness = filtersSchema.parse({}).maxStaleness;
/** Each takes memory from keys and values, and is there from vLLM's start on. */
const mostForMany = 24;

/** What an engine needs slots for. */
export interface SlotNeeds {
  /** Those in use. For the first there is room in any case. */
  models: number;
  /** How many policies old the rollouts may be that runs train on. @default 4, as of steps */
  maxStaleness?: number | undefined;
}

/** How many policies an engine should sample from at a time. */
export function slotsFor(needs: SlotNeeds): number {
  const each = slotsOfModel(needs);
  return Math.max(each, Math.min(mostForMany, wantedSlots(needs)));
}

/** The same where all models are trained at once. */
export function wantedSlots(needs: SlotNeeds): number {
  return needs.models * slotsOfModel(needs);
}

/** The newest policy, the older ones that rollouts may hold, and the one that is published. */
function slotsOfModel({ maxStaleness = defaultMaxStaleness }: SlotNeeds): number {
  return maxStaleness + 2;
}
