import { trainConfigSchema } from "@hone/core";
import { expect, test } from "vitest";
import { trainerConfig } from "./step-data.ts";

test("a cap that an earlier version took beside no correction is left out", () => {
  const stored = {
    ...trainConfigSchema.parse({ samplerCorrection: "none" }),
    importanceCap: 3,
  } as ReturnType<typeof trainConfigSchema.parse>;
  const ids = { operation_id: "op", model: "m", step: 6, lora: { r: 1, alpha: 2 } };
  const { loss } = trainerConfig({ ...ids, max_mismatch: 0.1, seed: 7 }, stored);
  expect(loss).toMatchObject({ samplerCorrection: "none" });
  expect(loss).not.toHaveProperty("importanceCap");
});
