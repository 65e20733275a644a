import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalSha256, canonicalSha256InTurns } from "./canonical.ts";

describe("the hash of a JSON value", () => {
  it("is the same in turns and at once", async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 9 }), async (value) => {
        expect(await canonicalSha256InTurns(value)).toBe(canonicalSha256(value));
      }),
    );
  });

  it("does not depend on the order of keys, nor on keys without a value", async () => {
    const one = { b: [{ d: 1, c: [] }], a: {}, e: undefined };
    const other = { a: {}, b: [{ c: [], d: 1 }] };
    expect(await canonicalSha256InTurns(one)).toBe(await canonicalSha256InTurns(other));
    expect(await canonicalSha256InTurns(one)).toBe(canonicalSha256(other));
  });

  it("gives others their turn", async () => {
    const rollouts = Array.from({ length: 60_000 }, (_, i) => ({
      rolloutId: `ro_${i}`,
      reward: 1,
    }));
    let turns = 0;
    const ticker = setInterval(() => (turns += 1), 1);
    await canonicalSha256InTurns({ op: { groups: [{ id: "g", rollouts }] } });
    clearInterval(ticker);
    expect(turns).toBeGreaterThan(1);
  });
});
