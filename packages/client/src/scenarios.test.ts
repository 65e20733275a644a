import fc from "fast-check";
import { expect, it } from "vitest";
import { planBatches, checkBatchesOptions } from "./batches.ts";
import { requireApart, scenarioKey, splitScenarios } from "./scenarios.ts";

const scenarios = Array.from({ length: 40 }, (_, seed) => ({ seed, template: `t${seed % 8}` }));

it("splits into two sets that share nothing and lose nothing", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ a: fc.nat(5), b: fc.nat(3) }), { minLength: 3, maxLength: 40 }),
      fc.nat(),
      fc.double({ min: 0.2, max: 0.7, noNaN: true }),
      (given, seed, heldOut) => {
        fc.pre(new Set(given.map(scenarioKey)).size > 1 && Math.round(heldOut * given.length) >= 1);
        const split = splitScenarios(given, { seed, heldOut });
        requireApart(split.train, split.heldOut);
        expect(split.train.length).toBeGreaterThan(0);
        expect(split.heldOut.length).toBeGreaterThan(0);
        const all = [...split.train, ...split.heldOut].map(scenarioKey).sort();
        expect(all).toEqual(given.map(scenarioKey).sort());
      },
    ),
  );
});

it("keeps families together", () => {
  const split = splitScenarios(scenarios, { heldOut: 10, by: ({ template }) => template });
  expect(split.heldOut).toHaveLength(10);
  const held = new Set(split.heldOut.map(({ template }) => template));
  expect(split.train.some(({ template }) => held.has(template))).toBe(false);
  expect(splitScenarios(scenarios, { heldOut: 10, by: ({ template }) => template })).toEqual(split);
  const other = splitScenarios(scenarios, { heldOut: 10, seed: 1, by: (s) => s.template });
  expect(other).not.toEqual(split);
});

it("refuses a split with an empty side", () => {
  for (const heldOut of [0, 40, 1.1e9, Number.NaN]) {
    expect(() => splitScenarios(scenarios, { heldOut })).toThrow(/leaves one side/);
  }
});

it("batches refuse a scenario that is held out, in whatever order its keys are", () => {
  const heldOut = [{ seed: 99 }, { template: "t3", seed: 3 }];
  const options = { groupsPerStep: 1, steps: 1, heldOut };
  expect(() => checkBatchesOptions(scenarios, options)).toThrow(
    /heldOut\[1\] is also scenario 3 of those to train on/,
  );
  checkBatchesOptions(scenarios, { ...options, heldOut: heldOut.slice(0, 1) });
  expect([...planBatches(scenarios, options, null)]).toHaveLength(1);
});
