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

/** Scenarios in families of these sizes. */
const familiesOf = (sizes: readonly number[]) =>
  sizes.flatMap((size, family) => Array.from({ length: size }, (_, n) => ({ family, n })));

it("holds out as near to the share as whole families allow, on whatever seed", () => {
  for (const seed of Array.from({ length: 20 }, (_, n) => n)) {
    const heldOutOf = (sizes: readonly number[], heldOut: number) =>
      splitScenarios(familiesOf(sizes), { heldOut, seed, by: ({ family }) => family }).heldOut
        .length;
    expect(heldOutOf([50, 5], 0.1)).toBe(5);
    expect(heldOutOf([50, 5], 0.9)).toBe(50);
    expect(heldOutOf([40, 50, 60], 0.1)).toBe(40);
    expect(heldOutOf([4, 4, 7, 20], 7)).toBe(7);
    expect(heldOutOf([9, 9, 9, 2, 2], 13)).toBe(13);
    expect(heldOutOf([1, 99], 0.5)).toBeGreaterThan(0);
  }
});

it("finds the nearest sum of families", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 2, maxLength: 8 }),
      fc.nat(),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (sizes, seed, share) => {
        const given = familiesOf(sizes);
        const wanted = 1 + Math.floor(share * (given.length - 2));
        const split = splitScenarios(given, { heldOut: wanted, seed, by: (s) => s.family });
        const sums = Array.from({ length: 2 ** sizes.length - 2 }, (_, n) =>
          sizes.reduce((sum, size, i) => sum + ((n + 1) & (1 << i) ? size : 0), 0),
        );
        const nearest = Math.min(...sums.map((sum) => Math.abs(sum - wanted)));
        expect(Math.abs(split.heldOut.length - wanted)).toBe(nearest);
        expect(split.train.length + split.heldOut.length).toBe(given.length);
        const held = new Set(split.heldOut.map(({ family }) => family));
        expect(split.train.some(({ family }) => held.has(family))).toBe(false);
      },
    ),
  );
});

it("gives the splits that it always gave", () => {
  const each = splitScenarios([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], { seed: 3, heldOut: 3 });
  expect(each).toEqual({ train: [1, 2, 4, 8, 3, 0, 7], heldOut: [9, 5, 6] });
  const { heldOut } = splitScenarios(scenarios, { heldOut: 10, seed: 1, by: (s) => s.template });
  expect([...new Set(heldOut.map(({ template }) => template))]).toEqual(["t2", "t1"]);
});

it("refuses one family, which would leave nothing to hold out", () => {
  expect(() => splitScenarios(scenarios, { by: () => "all" })).toThrow(
    expect.objectContaining({ code: "invalid_config", param: "by" }),
  );
  expect(() => splitScenarios([1, 1, 1], { heldOut: 1 })).toThrow(/of one family/);
});

it("refuses a split with an empty side", () => {
  for (const heldOut of [0, 40, 1.1e9]) {
    expect(() => splitScenarios(scenarios, { heldOut })).toThrow(/leaves one side/);
  }
  for (const options of [{ heldOut: Number.NaN }, { heldOut: "3" }, { seed: Number.NaN }]) {
    expect(() => splitScenarios(scenarios, options as never)).toThrow(/must be a (whole )?number/);
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
