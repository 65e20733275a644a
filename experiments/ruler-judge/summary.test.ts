import type { TrajectoryGroup } from "@hone/client";
import { expect, it } from "vitest";
import { groupsOf } from "./groups.ts";
import { keyOf, rowsOf } from "./summary.ts";

const judged = (seed: number, inOrder: number, valid = 1): TrajectoryGroup[] =>
  groupsOf(seed, 8).map(({ group }) => {
    const [first] = group.trajectories;
    return { ...group, trajectories: [{ ...first!, metrics: { in_order: inOrder, valid } }] };
  });

it("sets an arm beside the base and beside its control, a seed each and all together", () => {
  const results = {
    [keyOf("base", 1, "greedy")]: judged(1, 0.5),
    [keyOf("base", 2, "greedy")]: judged(2, 0.6),
    [keyOf("listwise-sft", 1, "greedy")]: judged(1, 0.9),
    [keyOf("listwise-sft", 2, "greedy")]: judged(2, 0.8, 0.5),
    [keyOf("listwise-sft-control", 2, "greedy")]: judged(2, 0.3),
  };
  expect(rowsOf(results, ["listwise-sft", "pairwise-sft"], [1, 2, 3], "greedy")).toEqual([
    {
      arm: "listwise-sft",
      "seed 1": "0.50 → 0.90 [0.40, 0.40]",
      "seed 2": "0.60 → 0.80 [0.20, 0.20]",
      together: expect.stringMatching(/^0\.55 → 0\.85 \[0\.2\d, 0\.3\d\]$/) as string,
      "control → this": "0.30 → 0.80 [0.50, 0.50]",
      valid: "0.75",
    },
  ]);
  expect(rowsOf(results, ["listwise-sft"], [1, 2], "sampled")).toEqual([]);
});
