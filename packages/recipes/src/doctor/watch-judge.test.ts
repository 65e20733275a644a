import type { TrajectoryGroup } from "@hone/core";
import type { ScoreHow } from "@hone/client/run";
import { rulerScoreGroup } from "@hone/ruler";
import { garbage, score, ScriptedJudge, type JudgeStep } from "@hone/ruler/testing";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { groupsOf, normals, qualityOf } from "./outputs.test-support.ts";
import { watchJudge, type JudgeWarning, type WatchJudgeOptions } from "./watch-judge.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

const how = { mode: "train" } as ScoreHow;
const groups = groupsOf({ groups: 60, outputs: 4, within: 0.2, between: 0.1, seed: 4 });
const worth = new Map(
  groups.flatMap(({ trajectories }) =>
    trajectories.map((one) => [one.messages.at(-1)?.content, qualityOf(one)] as const),
  ),
);
const clipped = (value: number) => Math.min(1, Math.max(0, value));

/** Scores groups by RULER over a scripted judge, in steps of 12 groups. */
async function watched(
  script: JudgeStep,
  given: { steps?: number; passes?: number } & WatchJudgeOptions,
) {
  const { steps = 3, passes = 2, ...options } = given;
  vi.spyOn(console, "warn").mockReturnValue();
  const judge = await ScriptedJudge.start({ otherwise: script });
  onTestFinished(() => judge.close());
  const warnings: JudgeWarning[] = [];
  const rate = watchJudge(
    async (those) =>
      await Promise.all(
        those.map((group) => rulerScoreGroup(group, judge.endpoint, { passes, cache: false })),
      ),
    { ...options, onWarning: (warning) => void warnings.push(warning) },
  );
  const scored: TrajectoryGroup[][] = [];
  for (let step = 0; step < steps; step += 1) {
    scored.push(await rate(groups.slice(12 * step, 12 * (step + 1)), how));
  }
  const said = warnings.map(({ figure, level }) => `${figure} ${level}`);
  const metrics = scored.at(-1)![0]!.trajectories[0]!.metrics;
  return { scored, warnings, said, metrics };
}

/** A judge that knows, with what a test adds to each score. */
function judging(more: (at: number, of: number) => number): JudgeStep {
  return score((attempt, { attempts }) => {
    const value = 0.5 + (worth.get(attempt.finalText) ?? NaN) / 2;
    return clipped(value + more(attempts.indexOf(attempt), attempts.length));
  });
}

describe("a judge that is watched in a run", () => {
  it("has its figures in the metrics, and no warning where it is good", async () => {
    const gold = qualityOf;
    const { said, metrics } = await watched(
      judging(() => 0),
      { gold },
    );
    expect(said).toEqual([]);
    expect(metrics).toMatchObject({ "judge/valid": 1, "judge/zero_variance": 0 });
    expect(metrics["judge/variance"]).toBeGreaterThan(0.3);
    expect(metrics["judge/accuracy"]).toBeGreaterThan(0.9);
    expect(metrics["judge/noise_ratio"]).toBeCloseTo(0, 6);
    expect(metrics["judge/position_bias"]).toBeCloseTo(0, 6);
  });

  it("is warned of once for each condition, not before there are enough groups", async () => {
    const normal = normals(3);
    const { warnings, said, scored } = await watched(
      judging(() => 0.4 * normal()),
      { steps: 5 },
    );
    expect(said).toEqual(["noise_ratio fail"]);
    expect(warnings[0]).toMatchObject({ groups: 24, reason: expect.stringMatching(/passes/) });
    // In the step that it was found in, and in no other.
    expect(
      scored.map(([first]) => first!.logs.filter((line) => line.startsWith("judge, ")).length),
    ).toEqual([0, 1, 0, 0, 0]);
  });

  it("is warned of again where a warning becomes a failure", async () => {
    const normal = normals(3);
    let noise = 0.14;
    const script = judging(() => noise * normal());
    const warnings: string[] = [];
    vi.spyOn(console, "warn").mockImplementation((text: string) => void warnings.push(text));
    const judge = await ScriptedJudge.start({ otherwise: script });
    onTestFinished(() => judge.close());
    const rate = watchJudge(
      async (those) =>
        await Promise.all(
          those.map((one) => rulerScoreGroup(one, judge.endpoint, { passes: 2, cache: false })),
        ),
      { window: 24 },
    );
    await rate(groups.slice(0, 24), how);
    noise = 1;
    await rate(groups.slice(24, 48), how);
    await rate(groups.slice(24, 48), how);
    expect(warnings.filter((text) => /noise/.test(text))).toEqual([
      expect.stringMatching(/needs watching \(newest 24 groups\)/),
      expect.stringMatching(/cannot teach as it is \(newest 24 groups\)/),
    ]);
  });

  it("a liking for a place is found where the orders differ", async () => {
    const { said, metrics } = await watched(
      judging((at, of) => (0.15 * at) / (of - 1)),
      {},
    );
    expect(said).toEqual([expect.stringMatching(/^position_bias /)]);
    expect(metrics["judge/position_bias"]).toBeCloseTo(0.15, 2);
  });

  it("garbage is found, and so are scores that tell no outputs apart", async () => {
    const dead = await watched(garbage(), {});
    expect(dead.said).toEqual(["valid fail"]);
    expect(dead.metrics).toEqual(expect.objectContaining({ "judge/valid": 0 }));
    const flat = await watched(
      score(() => 1),
      { passes: 1 },
    );
    expect(flat.said).toEqual(["variance fail", "saturation warn"]);
    expect(flat.metrics).toMatchObject({ "judge/zero_variance": 1, "judge/saturation": 1 });
    expect(flat.metrics["judge/noise_ratio"]).toBeUndefined();
  });

  it("one that goes against gold is found", async () => {
    const against = score(({ finalText }) => clipped(0.5 - (worth.get(finalText) ?? NaN) / 2));
    const { said } = await watched(against, { gold: qualityOf });
    expect(said).toEqual(["accuracy fail"]);
  });
});

it("scores that say no passes are watched by the rewards, and evaluations pass through", async () => {
  const warnings: JudgeWarning[] = [];
  const level = new Map(groups.map(({ id }, at) => [id, at]));
  // It tells scenarios apart, and hardly the outputs of one.
  const rate = watchJudge(
    (those) =>
      those.map((group) => ({
        ...group,
        trajectories: group.trajectories.map((one) => ({
          ...one,
          reward: level.get(group.id)! + 0.01 * qualityOf(one),
        })),
      })),
    { onWarning: (warning) => void warnings.push(warning) },
  );
  const evaluated = await rate(groups.slice(0, 30), { ...how, mode: "eval" });
  expect(evaluated[0]!.trajectories[0]!.metrics["judge/variance"]).toBeUndefined();
  expect(warnings).toEqual([]);
  await rate(groups.slice(0, 30), how);
  expect(warnings.map(({ figure, level: how_ }) => `${figure} ${how_}`)).toEqual(["variance fail"]);
});

it.each([
  [{ window: 2 }, "window"],
  [{ window: 10, least: 20 }, "least"],
  [{ often: 1 } as WatchJudgeOptions, "often"],
])("refuses by name what it cannot honour: %j", (options, param) => {
  expect(() => watchJudge((those) => those, options)).toThrow(expect.objectContaining({ param }));
});
