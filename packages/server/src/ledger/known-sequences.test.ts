import fc from "fast-check";
import { expect, it } from "vitest";
import { createKnownSequences } from "./known-sequences.ts";

const idsOf = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 12 });

it("tells of every prompt what it begins with of what was known, as comparing with each does", () => {
  const completion = fc.record({ promptSuffix: idsOf, sampled: idsOf, parent: fc.nat(20) });
  fc.assert(
    fc.property(fc.array(completion, { maxLength: 12 }), (given) => {
      const known = createKnownSequences();
      const whole: number[][] = [];
      given.forEach(({ promptSuffix, sampled, parent }, at) => {
        // Every other one continues an earlier one.
        const parentAt = at > 0 && parent % 2 === 1 ? parent % at : null;
        const before = parentAt === null ? [] : whole[parentAt]!;
        const prompt = [...before, ...promptSuffix];
        const shared = Math.max(0, ...whole.map((other) => sharedOf(prompt, other)));
        const found = known.add({
          id: String(at),
          parentId: parentAt === null ? null : String(parentAt),
          promptSuffix: Int32Array.from(promptSuffix),
          sampled: Int32Array.from(sampled),
        });
        expect(before.length + found).toBe(Math.max(before.length, shared));
        whole.push([...prompt, ...sampled]);
      });
    }),
    { numRuns: 2000 },
  );
});

function sharedOf(one: number[], other: number[]): number {
  let shared = 0;
  while (shared < one.length && one[shared] === other[shared]) shared += 1;
  return shared;
}
