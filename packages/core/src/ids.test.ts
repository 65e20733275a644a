import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { modelNamePattern, newId, parseModelRef, policyName, requireModelRef } from "./ids.ts";

describe("model references", () => {
  it("reads back every policy name that it makes", () => {
    fc.assert(
      fc.property(fc.stringMatching(modelNamePattern), fc.nat(999_999), (model, step) => {
        expect(parseModelRef(policyName(model, step))).toEqual({ model, step });
        expect(parseModelRef(model)).toEqual({ model, step: null });
      }),
    );
  });

  it.each(["", "A", "-a", "a@", "a@01", "a@-1", "a@1.5", "../a", "a/b", "a\0", "a%2e", "a@1@2"])(
    "refuses %j",
    (ref) => {
      expect(parseModelRef(ref)).toBeNull();
      expect(() => requireModelRef(ref)).toThrow(
        expect.objectContaining({ code: "model_not_found" }),
      );
    },
  );

  it("refuses a name of 65 characters", () => {
    expect(parseModelRef("a".repeat(64))).not.toBeNull();
    expect(parseModelRef("a".repeat(65))).toBeNull();
  });
});

describe("newId", () => {
  it("carries its prefix and 96 random bits", () => {
    const ids = new Set(Array.from({ length: 1000 }, () => newId("ro")));
    expect(ids.size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^ro_[0-9a-f]{24}$/);
  });
});
