import { expect, test } from "vitest";
import { completionOf } from "../testing/fixtures.ts";
import { type FilterGroup, selectForTraining } from "./filter.ts";

let count = 0;
function member(reward: number | null, given: Parameters<typeof completionOf>[1] = {}) {
  const rolloutId = `r${count++}`;
  return {
    rolloutId,
    reward,
    completions: [completionOf(rolloutId, { policy: "m@5", ...given })],
  };
}
const group = (...members: FilterGroup["members"]): FilterGroup => ({
  id: "g",
  failed: null,
  members,
});
const filterOptions = {
  step: 5,
  maxStaleness: 4,
  maxSequenceTokens: 100,
  allowConstrained: false,
  maskTruncatedCompletions: false,
};

test("where rewards are not compared every rollout trains, and a missing reward stays none", () => {
  const cut = { finishReason: "length" as const };
  const groups = [
    group(member(null), member(0.5)),
    group(member(1)),
    { ...group(member(1), member(1, cut)), failed: "judge_failed" as const },
  ];
  const options = { ...filterOptions, compares: false, maskTruncatedCompletions: true };
  const found = selectForTraining(groups, options);
  expect(found.rollouts.map(({ reward, trainable }) => [reward, trainable])).toEqual([
    [null, true],
    [0.5, true],
    [1, true],
    [null, true],
    [null, false],
  ]);
  expect(found.groups.map(({ reason, dropped }) => [reason, dropped])).toEqual([
    [null, {}],
    [null, {}],
    [null, { truncated: 1 }],
  ]);
  expect(found.reasons).toEqual({});
});
