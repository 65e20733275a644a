import { type AdapterBase, baseOf, isSameBase } from "../policies/base-of.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models } from "../policies/models.ts";

/**
 * How many models of a base are played or trained now: those with open rollouts, requests under way or operations that have
 * not ended. Of the others nothing is asked of an engine.
 */
export function modelsInUse(
  base: AdapterBase,
  parts: {
    models: Pick<Models, "list">;
    live: Pick<LivePolicies, "requestsOf">;
    operations: { unfinished(model: string): readonly string[] };
  },
): number {
  const { models, live, operations } = parts;
  return models
    .list()
    .filter((model) => isSameBase(baseOf(model), base))
    .filter(({ name }) => live.requestsOf(name) > 0 || operations.unfinished(name).length > 0)
    .length;
}
