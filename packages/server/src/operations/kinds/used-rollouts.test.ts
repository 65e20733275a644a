import { expect, test } from "vitest";
import { train } from "./train.ts";

type Record_ = Parameters<NonNullable<typeof train.used>>[0];

/** A step on two groups, of which the second compared nothing; of the first one rollout was left out of the loss. */
function usedBy(config: object): readonly string[] | undefined {
  const rollouts = [
    { id: "trained", reward: 1, group: 0, trainable: true },
    { id: "left-out", reward: 0, group: 0, trainable: false },
    { id: "equal", reward: 1, group: 1, trainable: false },
  ];
  const outcome = { groups: [{ reason: null }, { reason: "zero_variance" }] };
  return train.used?.({
    op: { config },
    work: { work: { rollouts }, outcome },
  } as unknown as Record_);
}

test("a rollout that was in the baseline is used, one that a distillation left out is free", () => {
  expect(usedBy({ type: "grpo" })).toEqual(["trained", "left-out"]);
  expect(usedBy({ type: "distill", rewardCoef: 0 })).toEqual(["trained"]);
  // With rewards beside the teacher it was compared.
  expect(usedBy({ type: "distill", rewardCoef: 0.5 })).toEqual(["trained", "left-out"]);
});
