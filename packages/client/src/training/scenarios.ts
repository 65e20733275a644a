import { HoneError, refuseUnknownOptions, requireNumber } from "@hone/core";
import { optionalFunction, requireList } from "../argument-kinds.ts";
import { mulberry32, shuffledIndices } from "@hone/core";

/** A text that is equal for two scenarios with the same content, whatever the order of their keys. */
export function scenarioKey(scenario: unknown): string {
  const key = JSON.stringify(scenario, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return key ?? "undefined";
}

export interface SplitOptions<Scenario> {
  /** How many scenarios to hold out: a number, or a share below 1. @default 0.2 */
  heldOut?: number | undefined;
  /** @default 0 */
  seed?: number | undefined;
  /**
   * Scenarios for which this gives the same value stay together on one side. Hold out whole templates, names or
   * orders; otherwise the score may only show that the agent remembers them. @default each scenario by itself
   */
  by?: ((scenario: Scenario) => string | number) | undefined;
}

/**
 * Splits scenarios into those to train on and those held out. The same scenarios and seed give the same split. A
 * scenario that is in the list twice is on one side only. With `by`, the number of scenarios held out is as close
 * to `heldOut` as whole families allow.
 */
export function splitScenarios<Scenario>(
  scenarios: readonly Scenario[],
  options: SplitOptions<Scenario> = {},
): { train: Scenario[]; heldOut: Scenario[] } {
  requireList("splitScenarios()", scenarios, "scenarios");
  refuseUnknownOptions("splitScenarios()", options, ["heldOut", "seed", "by"]);
  optionalFunction("splitScenarios()", options.by, "by");
  const { heldOut = 0.2, seed = 0, by = scenarioKey } = options;
  requireNumber("heldOut", heldOut, {});
  requireNumber("seed", seed, { whole: true });
  const families = new Map<string | number, Scenario[]>();
  for (const scenario of scenarios) {
    const family = by(scenario);
    families.set(family, [...(families.get(family) ?? []), scenario]);
  }
  const wanted = heldOut < 1 ? Math.round(heldOut * scenarios.length) : heldOut;
  if (!(wanted >= 1 && wanted < scenarios.length)) {
    throw new HoneError(
      `heldOut is ${heldOut}, which leaves one side of ${scenarios.length} scenarios empty. Give a number or a share between.`,
      { code: "invalid_config", param: "heldOut" },
    );
  }
  if (families.size < 2) {
    throw new HoneError(
      `All ${scenarios.length} scenarios are of one family, which stays on one side: none can be held out. Let "by" tell more of them apart, or give more kinds of scenarios.`,
      { code: "invalid_config", param: options.by ? "by" : "scenarios" },
    );
  }
  const all = [...families.values()];
  const order = shuffledIndices(all.length, mulberry32(seed)).map((index) => all[index] ?? []);
  const out = new Set(
    chooseSizes(
      order.map(({ length }) => length),
      wanted,
    ),
  );
  return {
    train: order.flatMap((family, index) => (out.has(index) ? [] : family)),
    heldOut: order.flatMap((family, index) => (out.has(index) ? family : [])),
  };
}

/** Most families × held-out scenarios for which the best choice is searched. */
const longestSearch = 2e7;

/** Indices of the sizes whose sum is nearest to `wanted`: at least one of them, and never all. */
function chooseSizes(sizes: readonly number[], wanted: number): number[] {
  const first = firstSizes(sizes, wanted);
  if (first.sum === wanted) return first.indices;
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const smallest = sizes.reduce((least, size) => Math.min(least, size));
  // Of very many families the first ones are off by less than one of them: not worth a search of seconds.
  if (sizes.length * wanted > longestSearch) return first.indices;
  // A sum above twice what is wanted is further away than any below, unless there is none below.
  const most = Math.min(total - 1, Math.max(2 * wanted, smallest));
  const last = lastSizes(sizes, most, wanted);
  const reached = [...last.keys()].filter((sum) => sum > 0 && (last[sum] ?? -1) >= 0);
  const distance = (sum: number) => Math.abs(sum - wanted);
  const nearest = reached.reduce((a, b) => (distance(b) <= distance(a) ? b : a));
  if (distance(first.sum) === distance(nearest)) return first.indices;
  const indices: number[] = [];
  for (let sum = nearest; sum > 0; sum -= sizes[indices.at(-1) ?? 0] ?? sum) {
    indices.push(last[sum] ?? 0);
  }
  return indices;
}

/** The first sizes until their sum reaches `wanted`, and never the last size. */
function firstSizes(sizes: readonly number[], wanted: number): { indices: number[]; sum: number } {
  const indices: number[] = [];
  let sum = 0;
  for (const [index, size] of sizes.slice(0, -1).entries()) {
    if (sum >= wanted) break;
    indices.push(index);
    sum += size;
  }
  return { indices, sum };
}

/** For each sum the index of the last size that it is made of; −1 if no sizes make it. */
function lastSizes(sizes: readonly number[], most: number, wanted: number): Int32Array {
  const last = new Int32Array(most + 1).fill(-1);
  last[0] = 0;
  for (const [index, size] of sizes.entries()) {
    for (let sum = most; sum >= size; sum -= 1) {
      if ((last[sum] ?? 0) < 0 && (last[sum - size] ?? -1) >= 0) last[sum] = index;
    }
    if ((last[wanted] ?? -1) >= 0) break;
  }
  return last;
}

/** Throws if a scenario is in both: its score would show memory, not skill. */
export function requireApart(train: readonly unknown[], heldOut: readonly unknown[]): void {
  const keys = new Map(train.map((scenario, index) => [scenarioKey(scenario), index]));
  heldOut.forEach((scenario, index) => {
    const twin = keys.get(scenarioKey(scenario));
    if (twin === undefined) return;
    throw new HoneError(
      `heldOut[${index}] is also scenario ${twin} of those to train on. Take it out of one of them; splitScenarios() makes two sets that share none.`,
      { code: "invalid_config", param: `heldOut[${index}]` },
    );
  });
}
