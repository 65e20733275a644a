import type { Trajectory, TrajectoryGroup } from "@hone/core";
import type { ScoreHow } from "@hone/client/run";
import { expect, it, onTestFinished, vi } from "vitest";
import { groupOf } from "../../packages/recipes/src/doctor/outputs.test-support.ts";
import { policyThat } from "./policy-that.ts";
import { coinOf, selfJudge, type SelfJudgeOptions } from "@hone/recipes";

const rewardsOf = ({ trajectories }: TrajectoryGroup) => trajectories.map(({ reward }) => reward);
const rising = (a: number | null = null, b: number | null = null) => (a ?? -1) - (b ?? -1);
const judgesOf = (given: SelfJudgeOptions) => selfJudge({ judgementsWithGold: 4, ...given });
const listed = (scores: readonly number[]) => `I think [${scores.join(", ")}]`;

it("with gold the rollouts get gold, and judgements are trained by how they agree with it", async () => {
  const golds = [1, 0, 0, 1];
  const { how, also, rollouts } = await policyThat((_, nth, order) => {
    const right = order.map((output) => golds[output]!);
    const answers = [right, right.map(() => 0.5), null, right.map((gold) => 1 - gold)];
    const scores = answers[nth];
    return scores ? listed(scores) : "I cannot say.";
  });
  const score = judgesOf({ goldFraction: 1, judgeWeight: 0.25 });
  const [solved] = await score([groupOf("g0", golds)], how);
  expect(rewardsOf(solved!)).toEqual(golds);
  expect(solved!.trajectories[0]!.metrics).toMatchObject({ gold_reward: 1, filtered_count: 0 });
  const [judgements] = also;
  expect(judgements!.metadata).toMatchObject({ kind: "judge" });
  // Right, all the same, unreadable, the wrong way round: in the order in which they ended.
  expect(rewardsOf(judgements!).toSorted(rising)).toEqual([0, 0, 0, 1]);
  const told = judgements!.trajectories.map(({ metrics }) => metrics["judge_success"]);
  expect(told.toSorted(rising)).toEqual([0, 1, 1, 1]);
  for (const { completions, rolloutId } of judgements!.trajectories) {
    expect(completions).toEqual({ [`c-${rolloutId}`]: { weight: 0.25 } });
  }
  expect([...rollouts.values()].map(({ mode }) => mode)).toEqual(Array(4).fill("train"));
});

it("without gold judgements score the rollouts, and none of them is trained", async () => {
  const { how, also, rollouts } = await policyThat((group, nth, order) => {
    if (group === "g1") return "No list.";
    if (group === "g2") return null;
    return nth === 0 ? "No list." : listed(order.map((output) => output / 4));
  });
  const groups = ["g0", "g1", "g2"].map((id) => groupOf(id, [9, 9, 9]));
  const score = judgesOf({ goldFraction: 0, judgementsWithoutGold: 3 });
  const [judged, unreadable, failed] = await score(groups, how);
  // By output, whatever the order in which they were shown; the unreadable one of three counts for nothing.
  expect(rewardsOf(judged!)).toEqual([0, 0.25, 0.5]);
  expect(judged!.trajectories[0]!.metrics["judge_success"]).toBeCloseTo(2 / 3, 12);
  for (const group of [unreadable!, failed!]) {
    expect(rewardsOf(group)).toEqual([null, null, null]);
    expect(group.metadata["failed"]).toBe("judge_failed");
  }
  expect(also).toEqual([]);
  expect(new Set([...rollouts.values()].map(({ mode }) => mode))).toEqual(new Set(["eval"]));
});

it("a policy that has not been seen to judge better than guessing scores nothing, and is not asked", async () => {
  const warned = vi.spyOn(console, "warn").mockReturnValue();
  onTestFinished(() => warned.mockRestore());
  let right = true;
  const { how } = await policyThat((_, __, order) =>
    listed(order.map((output) => (right ? output : 3 - output) / 4)),
  );
  const seed = 0;
  const named = Array.from({ length: 400 }, (_, n) => `g${n}`);
  const hasGold = (id: string) => coinOf(seed, groupOf(id, []).scenario) < 0.5;
  const golden = named.filter(hasGold).map((id) => groupOf(id, [0, 1, 2, 3]));
  const plain = groupOf(
    named.find((id) => !hasGold(id))!,
    [9, 9, 9, 9],
  );
  const score = judgesOf({ goldFraction: 0.5, seed, trustWindow: 12 });
  const step = async (from: number, count: number) => {
    const scored = await score([...golden.slice(from, from + count), plain], how);
    return scored.at(-1)!;
  };

  const untrusted = await step(0, 6);
  expect(rewardsOf(untrusted)).toEqual([null, null, null, null]);
  expect(untrusted.metadata["failed"]).toBeUndefined();
  expect(untrusted.logs).toEqual([expect.stringMatching(/judge_untrusted.*0 groups with gold/)]);
  expect(untrusted.trajectories[0]!.metrics).toMatchObject({
    judge_untrusted: 1,
    judge_accuracy: 1,
  });
  expect(untrusted.trajectories[0]!.metrics["judge_success"]).toBeUndefined();
  expect(warned.mock.calls.flat()).toEqual([
    expect.stringMatching(/from now on.*100% of the pairs/),
  ]);

  const trusted = await step(6, 6);
  expect(rewardsOf(trusted)).toEqual([0, 0.25, 0.5, 0.75]);
  expect(trusted.trajectories[0]!.metrics).toMatchObject({ judge_untrusted: 0, judge_success: 1 });

  right = false;
  await step(12, 12);
  expect(rewardsOf(await step(24, 1))).toEqual([null, null, null, null]);
  expect(warned.mock.calls.at(-1)).toEqual([expect.stringMatching(/any more \(judge_untrusted\)/)]);
});

it("leaves out and counts what hardly differs, of rollouts and judgements", async () => {
  const { how, also } = await policyThat((_, __, order) =>
    listed(order.map((output) => output / 4)),
  );
  const groups = [groupOf("g0", [0.5, 0.50005]), groupOf("g1", [0, 1])];
  const [close, apart] = await judgesOf({ goldFraction: 1 })(groups, how);
  expect(close!.metadata["failed"]).toBe("zero_variance");
  expect(apart!.metadata["failed"]).toBeUndefined();
  expect(close!.trajectories[0]!.metrics["filtered_count"]).toBe(1);
  // All four judgements of a group are alike here.
  expect(also.map(({ metadata }) => metadata["failed"])).toEqual([
    "zero_variance",
    "zero_variance",
  ]);
  expect(also[0]!.trajectories[0]!.metrics["filtered_count"]).toBe(2);
});

it("judgements say nothing where gold tells no rollouts apart", async () => {
  const { how, also } = await policyThat((_, __, order) => listed(order.map(() => 1)));
  await judgesOf({ goldFraction: 1 })([groupOf("g0", [1, 1])], how);
  expect(rewardsOf(also[0]!)).toEqual([null, null, null, null]);
});

it("with parity rewards and reads as Trinity-RFT does", async () => {
  const { how, also } = await policyThat((_, __, order) =>
    // Beyond 1 is clipped.
    listed(order.map((output) => [7, 0][output]!)),
  );
  const score = judgesOf({ goldFraction: 1, parity: true });
  await score([groupOf("g0", [1.1, -0.1])], how);
  for (const reward of rewardsOf(also[0]!)) expect(reward).toBeCloseTo(1, 12);
});

it("in a run each judgement has a seed of its own, and the same when the batch is judged again", async () => {
  const { how, seeds } = await policyThat((_, __, order) => listed(order.map(() => 1)));
  // Two groups with gold and two without.
  const fraction = 0.5;
  const named = Array.from({ length: 40 }, (_, n) => groupOf(`g${n}`, [0, 1]));
  const hasGold = (one: TrajectoryGroup) => coinOf(0, one.scenario) < fraction;
  const groups = [
    ...named.filter(hasGold).slice(0, 2),
    ...named.filter((one) => !hasGold(one)).slice(0, 2),
  ];
  const judge = async (seed?: number) => {
    seeds.length = 0;
    const score = judgesOf({ goldFraction: fraction, trustAbove: null, judgementsWithoutGold: 2 });
    await score(groups, { ...how, seed });
    return seeds.map(Number).toSorted((a, b) => a - b);
  };
  const first = await judge(7);
  expect(new Set(first).size).toBe(2 * 4 + 2 * 2);
  expect(first.every((seed) => Number.isInteger(seed) && seed >= 0)).toBe(true);
  expect(await judge(7)).toEqual(first);
  expect((await judge(8)).filter((seed) => first.includes(seed))).toEqual([]);
  // Outside of a run nothing is sent unasked.
  await judge();
  expect(new Set(seeds)).toEqual(new Set([undefined]));
});

it("evaluates by gold alone, with no judgement", async () => {
  const { how, rollouts } = await policyThat(() => null);
  const gold = ({ reward }: Trajectory) => ({
    reward: (reward ?? 0) + 0.1,
    accuracy: 1,
    formatScore: 0.1,
  });
  const alsoTrain = () => {
    throw new Error("An evaluation trains nothing.");
  };
  const evaluation: ScoreHow = { ...how, mode: "eval", alsoTrain };
  const [group] = await selfJudge({ goldFraction: 0, gold })([groupOf("g0", [1])], evaluation);
  expect(group!.trajectories[0]).toMatchObject({
    reward: 1.1,
    metrics: { gold_reward: 1.1, accuracy: 1, format_score: 0.1, eval_accuracy: 1 },
  });
  expect(rollouts.size).toBe(0);
});

it.each([
  [{ goldFraction: 2 }, "goldFraction"],
  [{ judgementsWithGold: 1 }, "judgementsWithGold"],
  [{ seed: 0.5 }, "seed"],
  [{ trustWindow: 5 }, "trustWindow"],
  [{ trustAbove: 2 }, "trustAbove"],
  [{ trustAbove: 0.6, goldFraction: 0 }, "trustAbove"],
])("refuses by name what it cannot honour: %j", (options, param) => {
  expect(() => selfJudge(options)).toThrow(
    expect.objectContaining({ code: "invalid_config", param }),
  );
});
