import { submitOperationSchema } from "@hone/core";
import { expect, it } from "vitest";
import { operationSha } from "./operation-sha.ts";

const rollouts = [
  { rolloutId: "ro_1", reward: 1 },
  { rolloutId: "ro_2", reward: 0 },
];
const submit = (config: object) =>
  submitOperationSchema.parse({
    clientToken: "evening-7",
    op: { type: "train", groups: [{ id: "g", rollouts }], config },
  });

it("is what a version without objectives stored for the same request", async () => {
  const stored = "3c272343dbe68d18ad25fd19ba656760ca0831b43c4a31d3dff4795043ca0efa";
  expect(await operationSha(submit({ learningRate: 1e-4 }))).toBe(stored);
  expect(await operationSha(submit({ learningRate: 1e-4, type: "policy_gradient" }))).toBe(stored);
  expect(await operationSha(submit({ learningRate: 1e-4, importanceCap: 2 }))).toBe(stored);
  for (const other of [
    { learningRate: 2e-4 },
    { mismatchMask: "token" },
    { measureKl: true },
    ...[
      { beta: 0.1 },
      { entropyCoef: 0.01 },
      { topEntropyQuantile: 0.5 },
      { offPolicyMaskThreshold: 1 },
    ],
    ...[{ baseline: "leave_one_out" }, { samplerCorrection: "none" }],
    { normalizerTokens: 64 },
    { importanceCap: 3 },
  ]) {
    expect(await operationSha(submit({ learningRate: 1e-4, ...other }))).not.toBe(stored);
  }
});
