import { assert, boolean, integer, nat, property } from "fast-check";
import { describe, expect, it } from "vitest";
import { checkBatchesOptions, planBatches } from "./batches.ts";
import { modelInfo, send, startRouteServer } from "../testing/route-server.ts";

const scenarios = (size: number) => Array.from({ length: size }, (_, index) => index);

describe("batches", () => {
  it("resumed anywhere, go on as if never stopped", () => {
    const stopped = property(
      integer({ min: 1, max: 12 }),
      integer({ min: 1, max: 7 }),
      integer({ min: 1, max: 9 }),
      nat(),
      boolean(),
      (size, groupsPerStep, stop, seed, shuffle) => {
        const options = { groupsPerStep, steps: 9, seed, shuffle };
        const whole = [...planBatches(scenarios(size), options, null)];
        const cursor: unknown = JSON.parse(JSON.stringify(whole[stop - 1]?.cursor));
        const rest = planBatches(scenarios(size), { groupsPerStep, steps: 9 }, cursor);
        expect([...rest]).toEqual(whole.slice(stop));
      },
    );
    expect(() => assert(stopped)).not.toThrow();
  });

  it("use every scenario once an epoch, in another order each epoch", () => {
    const plan = [...planBatches(scenarios(6), { groupsPerStep: 2, steps: 6 }, null)];
    const epochs = [plan.slice(0, 3), plan.slice(3)].map((e) => e.flatMap((b) => b.scenarios));
    for (const epoch of epochs) expect(new Set(epoch)).toEqual(new Set(scenarios(6)));
    expect(epochs[0]).not.toEqual(epochs[1]);
    const still = planBatches(scenarios(3), { groupsPerStep: 2, steps: 3, shuffle: false }, null);
    expect([...still].map((batch) => batch.scenarios)).toEqual([
      [0, 1],
      [2, 0],
      [1, 2],
    ]);
  });

  it("begin a new epoch where the scenarios are others, and count the steps on", () => {
    const [first] = planBatches(scenarios(6), { groupsPerStep: 2, steps: 5 }, null);
    const rest = [...planBatches(scenarios(7), { groupsPerStep: 2, steps: 5 }, first?.cursor)];
    expect(rest.map((batch) => batch.step)).toEqual([1, 2, 3, 4]);
    expect(rest[0]?.epoch).toBe(1);
    expect(new Set(rest.slice(0, 3).flatMap((batch) => batch.scenarios)).size).toBe(6);
  });

  it("yield nothing after the last step", () => {
    const [only] = planBatches([1], { groupsPerStep: 1, steps: 1 }, null);
    expect([...planBatches([1], { groupsPerStep: 1, steps: 1 }, only?.cursor)]).toEqual([]);
  });

  it("refuse a cursor and options that mean nothing", () => {
    const one = { groupsPerStep: 1, steps: 1 };
    expect(() => [...planBatches([1], one, { offset: 3 })]).toThrow(/not made by batches/);
    expect(() => checkBatchesOptions([], one)).toThrow(/scenario/);
    expect(() => checkBatchesOptions([1], { ...one, steps: 1.5 })).toThrow(/steps/);
    expect(() => checkBatchesOptions([1], { ...one, stpes: 1 } as never)).toThrow(/stpes/);
    expect(() => checkBatchesOptions([1], { ...one, shuffle: "no" } as never)).toThrow(/shuffle/);
    expect(() => checkBatchesOptions([1], { ...one, heldOut: 2 } as never)).toThrow(/heldOut/);
  });

  it("ask the model where they are", async () => {
    const cursor = { epoch: 0, position: 1, seed: 0, step: 1, size: 3, shuffle: false };
    const server = await startRouteServer([
      [
        "(PUT /v1/models/m|GET /v1/models/m/state)",
        (_, response) => send(response, modelInfo(cursor)),
      ],
    ]);
    try {
      const model = await server.hone().model({ name: "m" });
      const seen = [];
      for await (const batch of model.batches(["a", "b", "c"], { groupsPerStep: 1, steps: 3 })) {
        seen.push(...batch.scenarios);
      }
      expect(seen).toEqual(["b", "c"]);
    } finally {
      await server.close();
    }
  });
});
