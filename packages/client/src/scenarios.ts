import { HoneError } from "@hone/core";
import { refuseUnknownOptions } from "@hone/core";
import { mulberry32, shuffledIndices } from "@hone/core";

/** Equal for two scenarios that say the same, in whatever order their keys were written. */
export function scenarioKey(scenario: unknown): string {
  const key = JSON.stringify(scenario, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return key ?? "undefined";
}

export interface SplitOptions<Scenario> {
  /** Scenarios to hold out: a number, or a share below 1. @default 0.2 */
  heldOut?: number | undefined;
  /** @default 0 */
  seed?: number | undefined;
  /**
   * Scenarios with the same answer stay together, on one side: hold out whole templates, names or
   * orders, or the score says only that the agent remembers them. @default each stands alone
   */
  by?: ((scenario: Scenario) => string | number) | undefined;
}

/**
 * Splits scenarios into those to train on and those held out. The same scenarios and seed give the same
 * split; one that is there twice is on one side only.
 */
export function splitScenarios<Scenario>(
  scenarios: readonly Scenario[],
  options: SplitOptions<Scenario> = {},
): { train: Scenario[]; heldOut: Scenario[] } {
  refuseUnknownOptions("splitScenarios()", options, ["heldOut", "seed", "by"]);
  const { heldOut = 0.2, seed = 0, by = scenarioKey } = options;
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
  const all = [...families.values()];
  const kept: Scenario[] = [];
  const out: Scenario[] = [];
  for (const index of shuffledIndices(all.length, mulberry32(seed))) {
    const family = all[index] ?? [];
    // The last family stays to train on, however large the others are.
    const lastChance = kept.length === 0 && out.length + family.length === scenarios.length;
    (out.length < wanted && !lastChance ? out : kept).push(...family);
  }
  return { train: kept, heldOut: out };
}

/** Throws where a scenario is in both: a score on what was trained on shows memory, not skill. */
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
