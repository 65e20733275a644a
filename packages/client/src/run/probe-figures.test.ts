import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { describe, expect, it } from "vitest";
import { figuresOf, judgeNoise, passAtK } from "./probe-figures.ts";
import { judgeFigures } from "./probe-verdict.ts";
import { estimateOf } from "./probe-estimate.ts";

function trajectory(reward: number | null, over: Partial<Trajectory> = {}): Trajectory {
  return {
    ...{ rolloutId: null, model: "m", policy: "m@0", tools: null, histories: [] },
    messages: [{ role: "assistant", content: `answer ${Math.random()}` }],
    ...{ reward, metrics: {}, metadata: {}, logs: [], startedAt: 0, durationMs: 5 },
    usage: { completions: 2, promptTokens: 100, completionTokens: 10, sequenceTokens: 80 },
    ...over,
  };
}

function group(rewards: readonly (number | null)[], name = "g"): TrajectoryGroup {
  return {
    ...{ id: name, exceptions: [], metadata: {}, metrics: {}, logs: [], scenario: name },
    trajectories: rewards.map((reward, i) => trajectory(reward, { rolloutId: `${name}-${i}` })),
  };
}

const rule = { metric: "reward", relative: false };
const judged = (groups: TrajectoryGroup[], over: Partial<typeof rule> & { at?: number } = {}) =>
  judgeFigures(figuresOf(groups, { ...rule, ...over }, 4), null);

describe("pass@k", () => {
  it.each([
    // 1 − C(3,2)/C(4,2) = 1 − 3/6
    [4, 1, 2, 0.5],
    [4, 0, 4, 0],
    [4, 1, 4, 1],
    // 1 − C(8,4)/C(10,4) = 1 − 70/210
    [10, 2, 4, 2 / 3],
  ])("of %i rollouts with %i that pass, for k = %i", (n, c, k, expected) => {
    expect(passAtK(n, c, k)).toBeCloseTo(expected, 12);
  });

  it("is not known for more rollouts than there are", () => {
    expect(passAtK(3, 1, 4)).toBeNull();
  });
});

describe("the figures of a probe", () => {
  it("count what passes, what differs and what is missing", () => {
    const groups = [group([1, 0, 0, 0], "a"), group([0, 0, 0, 0], "b"), group([null, 0.5], "c")];
    const figures = figuresOf(groups, rule, 4);
    expect(figures).toMatchObject({
      ...{ groups: 3, rollouts: 10, failed: 0 },
      reward: { mean: 1.5 / 9, least: 0, most: 1, count: 9 },
      pass: { metric: "reward", at: 1, at1: 1 / 9, atK: 0.5, k: 4 },
      varied: { groups: 1, of: 2 },
      length: { turns: 2, promptTokens: 100, completionTokens: 10, sequenceTokens: 80 },
    });
  });

  it("know no pass where a reward has no level, or a scale of its own", () => {
    expect(figuresOf([group([200, 300])], rule, 2)).toMatchObject({
      pass: null,
      whyNoPass: expect.stringContaining("passAt"),
    });
    expect(figuresOf([group([200, 300])], { ...rule, at: 250 }, 2).pass).toMatchObject({
      at1: 0.5,
      atK: 1,
    });
    expect(figuresOf([group([0.2, 0.9])], { ...rule, relative: true }, 2).pass).toBeNull();
  });

  it("take the judge's noise from two judgements, by the rollouts' ids", () => {
    const first = [group([0, 1, 0, 1])];
    // Moved by ±.2: their differences have the variance 4/3 · .04, two judgements half of it; within the group 1/3.
    const second = [group([0.2, 0.8, 0.2, 0.8])].map((one) => ({
      ...one,
      trajectories: one.trajectories.toReversed(),
    }));
    expect(judgeNoise(first, second)).toBeCloseTo(0.02 * 4, 12);
    // What all rollouts of a group get alike moves no advantage.
    expect(judgeNoise(first, [group([0.3, 1.3, 0.3, 1.3])])).toBeCloseTo(0, 12);
    expect(judgeNoise(first, first)).toBe(0);
    expect(judgeNoise([group([1, 1])], [group([0, 1])])).toBeNull();
  });
});

describe("the verdict of a probe", () => {
  it.each([
    ["go", [group([1, 0, 0, 1]), group([0, 0, 1, 0])]],
    ["change_the_prompt", [group([0, 0, 0, 0]), group([0, 0, 0, 0])]],
    ["change_the_reward", [group([0, 0]), group([0.5, 0.5]), group([0.2, 0.2])]],
    ["change_the_reward", [group([null, null])]],
    ["no_go", [group([1, 1, 1, 1]), group([1, 1, 1, 1])]],
  ] as const)("is %s", (verdict, groups) => {
    expect(judged([...groups]).verdict).toBe(verdict);
  });

  it("is no_go above all where rollouts fail", () => {
    const failing = group([0, 0]);
    const exception = { rolloutId: null, type: "TypeError", message: "x", duringCall: null };
    const { verdict, reasons } = judged([{ ...failing, exceptions: [exception] }]);
    expect(verdict).toBe("no_go");
    expect(reasons[0]).toContain("TypeError: x");
    expect(reasons.length).toBeGreaterThan(1);
  });

  it("is no_go, with what the judge said, where the judge fails", () => {
    const failed = (name: string): TrajectoryGroup => ({
      ...group([null, null], name),
      ...{ metadata: { failed: "judge_failed" }, logs: [`RULER: ${name} was refused.`] },
    });
    const dead = judged([failed("a"), failed("b")]);
    expect(dead).toMatchObject({ verdict: "no_go" });
    expect(dead.reasons).toEqual([
      expect.stringMatching(/failed at 2 of 2 groups.*RULER: b was refused/),
    ]);
    const now = [failed("a"), group([0, 1], "b")];
    expect(judged(now).verdict).toBe("no_go");
    const rarely = [failed("a"), ...Array.from({ length: 19 }, (_, at) => group([0, 1], `${at}`))];
    expect(judged(rarely).verdict).toBe("go");
  });

  it("does not take agents for alike that only end with the same word", () => {
    const called = (name: string) =>
      ({ type: "function", function: { name, arguments: "{}" } }) as const;
    const worked = (name: string, id: string): Trajectory["messages"] => [
      { role: "assistant", content: null, tool_calls: [{ id, ...called(name) }] },
      { role: "tool", tool_call_id: id, content: "ok" },
      { role: "assistant", content: "Done." },
    ];
    const groupOfCalls = (name: (at: number) => string) => {
      const one = group([1, 0, 0, 1]);
      const trajectories = one.trajectories.map((each, at) => ({
        ...each,
        messages: worked(name(at), `call_${at}`),
      }));
      return [{ ...one, trajectories }];
    };
    expect(judged(groupOfCalls((at) => `tool_${at}`)).verdict).toBe("go");
    expect(judged(groupOfCalls(() => "tool")).verdict).toBe("change_the_prompt");
  });

  it("names cut answers, one answer for all, and a judge that does not agree with itself", () => {
    const groups = [group([1, 0, 0, 1])];
    const figures = figuresOf(groups, rule, 4);
    expect(judgeFigures({ ...figures, cut: 0.5 }, null).verdict).toBe("change_the_prompt");
    expect(judgeFigures({ ...figures, commonest: 1 }, null).verdict).toBe("change_the_prompt");
    expect(judgeFigures(figures, 0.7).verdict).toBe("change_the_reward");
    expect(judgeFigures(figures, 0.2).verdict).toBe("go");
    const constrained = { ...figures, constrained: 1 };
    expect(judgeFigures(constrained, null).verdict).toBe("no_go");
    expect(judgeFigures(constrained, null, { allowConstrained: true }).verdict).toBe("go");
  });
});

it("reckons a run from what was measured", () => {
  const figures = figuresOf([group([1, 0], "a"), group([0, 0], "b")], rule, 2);
  const settings = {
    ...{ steps: 10, groupsPerStep: 4, groupSize: 8, heldOut: 20, evalEvery: 0, evalHeldOut: 64 },
    verdict: "greedy",
  } as const;
  const measured = { warmingUp: 0, playing: 4, scoring: 2, training: 1, judgeUsd: 0.02 };
  expect(estimateOf(figures, measured, settings, 3.6)).toEqual({
    ...{ steps: 10, rollouts: 400, evaluationRollouts: 80, withTraining: true },
    ...{ promptTokens: 40_000, completionTokens: 4000 },
    // 400 rollouts of 1 s, and 320 of half a second to judge and a quarter to train on.
    hours: (400 + 160 + 80) / 3600,
    machineUsd: (3.6 * 640) / 3600,
    judgeUsd: 0.4,
  });
  const without = estimateOf(figures, { ...measured, training: null }, settings, undefined);
  expect(without).toMatchObject({ withTraining: false, machineUsd: null, hours: 560 / 3600 });
});
