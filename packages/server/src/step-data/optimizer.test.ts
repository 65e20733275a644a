import { expect, test } from "vitest";
import { optimizerOf } from "./step-data.ts";

test("the root of a second moment has more added where it is held in 8 bits", () => {
  const config = { learningRate: 1e-4, warmupSteps: 5, beta1: 0.9, beta2: 0.95 };
  const rest = { ...config, weightDecay: 0, maxGradNorm: 1 };
  expect(optimizerOf(rest)).toEqual({ ...rest, eps: 1e-16 });
  expect(optimizerOf({ ...rest, optimizer: "adamw_8bit" })).toEqual({
    ...rest,
    ...{ optimizer: "adamw_8bit", eps: 1e-8 },
  });
  expect(optimizerOf({ ...rest, optimizer: "adamw_8bit", eps: 1 })).toMatchObject({ eps: 1 });
  expect(optimizerOf({ ...rest, eps: 1e-3 })).toEqual({ ...rest, eps: 1e-3 });
});
