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
  for (const other of [
    { learningRate: 2e-4 },
    { mismatchMask: "token" },
    { measureKl: true },
    { normalizerTokens: 64 },
  ]) {
    expect(await operationSha(submit({ learningRate: 1e-4, ...other }))).not.toBe(stored);
  }
});

it("is what a version with one optimizer stored for a step along gradients", async () => {
  const stored = "bc1e0a3f960849c23b161887ac34eb74b7cc1711ed38b03f4ae8b33b3be931cd";
  const step = (config: object) =>
    submitOperationSchema.parse({ clientToken: "evening-7", op: { type: "optim_step", config } });
  expect(await operationSha(step({ learningRate: 1e-4 }))).toBe(stored);
  expect(await operationSha(step({ learningRate: 1e-4, eps: 1e-16 }))).toBe(stored);
  expect(await operationSha(step({ learningRate: 1e-4, eps: 1e-8 }))).not.toBe(stored);
  expect(await operationSha(step({ learningRate: 1e-4, optimizer: "adamw_8bit" }))).not.toBe(
    stored,
  );
});
