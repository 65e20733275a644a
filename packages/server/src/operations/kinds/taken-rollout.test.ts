import { expect, it } from "vitest";
import type { OperationContext } from "../context.ts";
import { takenRollout } from "./taken-rollout.ts";

/** A rollout of model "m", which was made on base "one". */
const context = (base: string) =>
  ({
    base: { name: base },
    models: { find: () => ({ base: "one" }) },
    rollouts: { require: () => ({ mode: "train", model: "m" }) },
    ledger: { list: async () => [] },
  }) as unknown as OperationContext;

it("takes rollouts of models of the same base, and refuses the ids of another one", async () => {
  expect(await takenRollout(context("one"), "key", "ro_1")).toEqual([]);
  await expect(takenRollout(context("other"), "key", "ro_1")).rejects.toMatchObject({
    code: "base_mismatch",
    message: expect.stringMatching(/"one".*"other"/) as string,
  });
});
