import type { TrajectoryGroup } from "@hone/core";
import { describe, expect, it } from "vitest";
import { shuffleRewards } from "./control.ts";

function group(rewards: (number | null)[]): TrajectoryGroup {
  return {
    scenario: {},
    metadata: {},
    exceptions: [],
    trajectories: rewards.map((reward, index) => ({
      rolloutId: `ro_${index}`,
      policy: "m@0",
      reward,
      metrics: { was: reward ?? -1 },
      metadata: {},
      logs: [],
      messages: [],
      usage: { promptTokens: 1, completionTokens: 1 },
      turns: 1,
      startedAt: 0,
      endedAt: 1,
    })),
  } as unknown as TrajectoryGroup;
}
const rewardsOf = (groups: TrajectoryGroup[]) =>
  groups.map(({ trajectories }) => trajectories.map(({ reward }) => reward));

describe("the control", () => {
  const groups = [group([0, 1, 2, 3, 4, 5, 6, 7]), group([10, null, 12, 13])];

  it("gives a group its own rewards in another order", () => {
    const shuffled = rewardsOf(shuffleRewards(groups, 1));
    expect(shuffled[0]).not.toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(shuffled[0]?.toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(new Set(shuffled[1])).toEqual(new Set([10, null, 12, 13]));
    expect(shuffled[1]?.[1]).toBeNull();
  });

  it("repeats an order by its seed, and leaves the rest and its input alone", () => {
    const once = shuffleRewards(groups, 5);
    expect(shuffleRewards(groups, 5)).toEqual(once);
    expect(rewardsOf(shuffleRewards(groups, 6))).not.toEqual(rewardsOf(once));
    expect(once[0]?.trajectories.map(({ metrics }) => metrics["was"])).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7,
    ]);
    expect(rewardsOf(groups)[0]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("leaves out what single completions would still say of the rewards", () => {
    const [plain] = groups;
    if (!plain) throw new Error("no group");
    const said = { a: { reward: 3, weight: 2 }, b: { advantage: 1 }, c: { trainable: false } };
    const given = plain.trajectories.map((one) => ({ ...one, completions: said }));
    const [shuffled] = shuffleRewards([{ ...plain, trajectories: given }], 1);
    for (const { completions } of shuffled?.trajectories ?? [])
      expect(completions).toEqual({ a: { weight: 2 }, b: {}, c: { trainable: false } });
    expect(given[0]?.completions).toEqual(said);
  });

  it("makes every order as likely as another", () => {
    const firsts = Array.from(
      { length: 600 },
      (_, seed) => rewardsOf(shuffleRewards([group([0, 1, 2])], seed))[0]?.[0],
    );
    for (const reward of [0, 1, 2]) {
      expect(firsts.filter((first) => first === reward).length / 600).toBeCloseTo(1 / 3, 1);
    }
  });
});
