import { mulberry32, type TrajectoryGroup } from "@hone/core";
import { garbage, score, ScriptedJudge } from "@hone/ruler/testing";
import { describe, expect, it, onTestFinished } from "vitest";
import { examineJudges, judgeReport, type JudgeReport } from "./examine.ts";
import type { JudgeFunction } from "./judge.ts";
import { functionJudge, rulerJudge } from "./judges.ts";
import { groupOf, groupsOf, normals, qualityOf } from "./outputs.test-support.ts";
import type { Estimate } from "./statistics.ts";

const size = { groups: 50, outputs: 8 };
const seeds = Array.from({ length: 20 }, (_, seed) => seed + 1);

async function examine(groups: TrajectoryGroup[], fn: JudgeFunction): Promise<JudgeReport> {
  const [report] = await examineJudges(groups, [functionJudge("scripted", fn)], { seed: 3 });
  return report!;
}

/** How often the intervals of twenty examinations hold the truth: a 95% interval should miss once. */
async function covered(
  truth: number,
  figure: (report: JudgeReport) => Estimate | null,
  examinations: readonly Promise<JudgeReport>[],
): Promise<number> {
  let held = 0;
  for (const report of await Promise.all(examinations)) {
    const found = figure(report);
    if (found && (found.low ?? NaN) <= truth && truth <= (found.high ?? NaN)) held += 1;
  }
  return held;
}

describe("a scripted judge is recovered within the interval", () => {
  const [within, between, noise] = [0.2, 0.3, 0.1];
  const noisy = seeds.map(async (seed) => {
    const normal = normals(1000 + seed);
    return await examine(groupsOf({ ...size, within, between, seed }), (outputs) =>
      outputs.map((output) => qualityOf(output) + noise * normal()),
    );
  });

  it.each<[what: string, truth: number, figure: (report: JudgeReport) => Estimate | null]>([
    ["noise", noise, (report) => report.noise],
    ["noise ratio", noise ** 2 / (noise ** 2 + within ** 2), (report) => report.noiseRatio],
    [
      "variance",
      (within ** 2 + noise ** 2) / (within ** 2 + noise ** 2 + between ** 2),
      (report) => report.variance,
    ],
    // A pair differs by N(0, 2·within²), its scores by noise of N(0, 2·noise²) more.
    ["accuracy", 0.5 + Math.atan(within / noise) / Math.PI, (report) => report.accuracy],
    ["position bias of none", 0, (report) => report.positionBias],
  ])("%s", async (_, truth, figure) => {
    expect(await covered(truth, figure, noisy)).toBeGreaterThanOrEqual(17);
  });

  it("position bias, and it is not taken for noise", async () => {
    const bias = 0.3;
    const biased = seeds.map(async (seed) => {
      const normal = normals(2000 + seed);
      return await examine(groupsOf({ ...size, within, between, seed }), (outputs) =>
        outputs.map(
          (output, at) => qualityOf(output) + noise * normal() + (bias * at) / (outputs.length - 1),
        ),
      );
    });
    expect(await covered(bias, (report) => report.positionBias, biased)).toBeGreaterThanOrEqual(17);
    expect(await covered(noise, (report) => report.noise, biased)).toBeGreaterThanOrEqual(17);
  });

  it("saturation", async () => {
    const clipped = seeds.map(async (seed) => {
      const random = mulberry32(seed);
      const groups = Array.from({ length: size.groups }, (_, at) =>
        groupOf(
          `g${at}`,
          Array.from({ length: size.outputs }, () => 1.6 * random() - 0.3),
        ),
      );
      return await examine(groups, (outputs) =>
        outputs.map((output) => Math.min(1, Math.max(0, qualityOf(output)))),
      );
    });
    // Of 1.6, .3 lie below 0 and .3 above 1.
    const figure = (report: JudgeReport) => report.saturation;
    expect(await covered(0.6 / 1.6, figure, clipped)).toBeGreaterThanOrEqual(17);
  });
});

describe("the verdict", () => {
  const groups = groupsOf({ ...size, within: 0.2, between: 0.2, seed: 1 });

  it("is good for a judge that knows", async () => {
    const { verdict, combined } = await examine(groups, (outputs) => outputs.map(qualityOf));
    expect(verdict.level).toBe("good");
    expect(combined?.value).toBeGreaterThan(0.7);
  });

  it("fails a judge that only tells scenarios apart, however accurate it is", async () => {
    const flat = groupsOf({ ...size, within: 0.02, between: 0.2, seed: 1 });
    const { verdict, accuracy } = await examine(flat, (outputs) => outputs.map(qualityOf));
    expect(accuracy?.value).toBe(1);
    expect(verdict).toMatchObject({ level: "fail" });
    expect(verdict.reasons.join()).toMatch(/variance .* within groups/);
  });

  it("fails a judge that guesses, and one that is against gold", async () => {
    const normal = normals(9);
    const guess = await examine(groups, (outputs) => outputs.map(() => normal()));
    expect(guess.verdict.level).toBe("fail");
    expect(guess.noiseRatio?.value).toBeGreaterThan(0.9);
    expect(guess.verdict.reasons.join()).toMatch(/no more than guessing/);
    const against = await examine(groups, (outputs) => outputs.map((one) => -qualityOf(one)));
    expect(against.verdict.reasons.join()).toMatch(/against gold/);
  });

  it("warns of a liking for a place only where it weighs", async () => {
    const liking = (bias: number) =>
      examine(groups, (outputs) =>
        outputs.map((one, at) => qualityOf(one) - (bias * at) / (outputs.length - 1)),
      );
    expect((await liking(0.02)).verdict.level).toBe("good");
    const strong = await liking(0.2);
    expect(strong.verdict.level).toBe("warn");
    expect(strong.verdict.reasons.join()).toMatch(/shown first/);
  });

  it("says so where there is nothing to compare", () => {
    const alike = { judgings: [], asked: 0, repaired: 0, costUsd: 0, seconds: 0, error: null };
    const { verdict, variance, zeroVariance } = judgeReport(
      { label: "any", scale: null },
      [alike, alike],
      [],
    );
    expect([variance?.value, zeroVariance?.value]).toEqual([0, 1]);
    expect(verdict).toMatchObject({ level: "fail" });
    expect(verdict.reasons.join()).toMatch(/alike/);
  });
});

describe("a judge over HTTP", () => {
  const groups = groupsOf({ groups: 12, outputs: 4, within: 0.2, between: 0.1, seed: 4 });
  const worth = new Map(
    groups.flatMap(({ trajectories }) =>
      trajectories.map((one) => [one.messages.at(-1)?.content, qualityOf(one)] as const),
    ),
  );
  const scale = (quality: number) => Math.min(1, Math.max(0, 0.5 + quality / 2));

  it("is judged in other orders, with its cost and its place found out", async () => {
    const judge = await ScriptedJudge.start({
      otherwise: score((attempt, { attempts }) =>
        Math.min(
          1,
          scale(worth.get(attempt.finalText) ?? NaN) +
            (0.1 * attempts.indexOf(attempt)) / (attempts.length - 1),
        ),
      ),
    });
    onTestFinished(() => judge.close());
    const label = `${new URL(judge.endpoint.baseURL).host}/scripted`;
    const prices = { [label]: { input: 1, output: 4 } };
    const [report] = await examineJudges(groups, [rulerJudge(judge.endpoint, { prices })]);
    expect(judge.requests).toHaveLength(24);
    expect(report).toMatchObject({
      judge: label,
      judgings: { asked: 24, valid: 24, repaired: 0 },
    });
    expect(report?.positionBias?.value).toBeCloseTo(0.1, 6);
    expect(report?.noise?.value).toBeCloseTo(0, 6);
    expect(report?.accuracy?.value).toBeGreaterThan(0.7);
    expect(report?.costUsdPerJudging).toBeGreaterThan(0);
    // Gold is the reward of the outputs, and no judge may see it.
    expect(JSON.stringify(judge.requests)).not.toMatch(/"reward"|quality/);
  });

  it("fails if it answers with garbage, and the doctor says with what", async () => {
    const judge = await ScriptedJudge.start({ otherwise: garbage() });
    onTestFinished(() => judge.close());
    const [report] = await examineJudges(groups.slice(0, 2), [rulerJudge(judge.endpoint)]);
    expect(report).toMatchObject({
      judgings: { asked: 4, valid: 0 },
      variance: null,
      verdict: { level: "fail" },
    });
    expect(report?.errors[0]?.message).toMatch(/no valid scores/);
  });
});

it("a function that gives no score for each output is refused", async () => {
  const groups = [groupOf("g", [0, 1])];
  await expect(examineJudges(groups, [functionJudge("mine", () => [1])])).rejects.toThrow(
    /mine gave no list of 2 scores/,
  );
});
