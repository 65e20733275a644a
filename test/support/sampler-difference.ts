import type { TrainResult } from "@hone/client";
import { expect } from "vitest";

/** In float32 the engine's logprobs of a step's tokens are the trainer's, to rounding. */
export function expectSameLogprobs({ metrics, policy }: TrainResult): void {
  for (const [name, limit] of [
    ["mean", 1e-5],
    ["max", 1e-3],
  ] as const) {
    const difference = metrics[`sampling/sampling_logp_difference/${name}`];
    // Null would mean that nothing was compared.
    expect(difference, `${name} at the step to ${policy}`).toEqual(expect.any(Number));
    expect(difference, `${name} at the step to ${policy}`).toBeLessThanOrEqual(limit);
  }
}
