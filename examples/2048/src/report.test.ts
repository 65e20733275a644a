import { describe, expect, it } from "vitest";
import { hasLearnt, stepLine, stoppedText, summaryText } from "./report.ts";
import type { RunSummary, StepReport } from "./train-run.ts";

const report: StepReport = {
  steps: 10,
  record: {
    type: "step",
    step: 3,
    policy: "2048@3",
    trained: true,
    reasons: { zero_variance: 1 },
    rollouts: 62,
    failed: 2,
    reward: { mean: 5.2, std: 0.71, low: 5, high: 5.4 },
    metrics: { score: 216.4 },
    variance: { groups: 7, of: 8 },
    answers: { distinct: 4, top: [] },
    tokens: { mean: 60, min: 20, max: 90 },
    tokensPerSecond: 901.2,
    seconds: { gather: 4.25, train: 3.1 },
    training: { loss: -0.01234 },
    warnings: [],
  },
  result: {
    type: "train",
    trained: true,
    step: 3,
    policy: "2048@3",
    reasons: { zero_variance: 1 },
    groups: [{ id: "g", reason: null, trainedRollouts: 7, dropped: { too_long: 1 } }],
    metrics: { loss: -0.01234 },
    checkpoint: "steps/3",
    warnings: [],
  },
};

describe("a step's line", () => {
  it("holds what the step was, and what was dropped and why", () => {
    expect(stepLine(report)).toBe(
      "step 3/10 | reward 5.20 ± 0.71 | score 216 | 901 tokens/s | played 4.3 s | trained 3.1 s | " +
        "loss -0.0123 | 2048@3 | dropped: 1 group zero_variance, 1 games too_long, 2 games failed",
    );
  });

  it("says that nothing trained", () => {
    const nothing: StepReport = {
      ...report,
      record: { ...report.record, failed: 0, training: { loss: null } },
      result: {
        ...report.result,
        trained: false,
        reasons: { zero_variance: 8 },
        groups: [],
        metrics: { loss: null },
      },
    };
    expect(stepLine(nothing)).toContain(
      "loss none | 2048@3 | trained nothing: 8 groups zero_variance",
    );
  });
});

describe("the summary", () => {
  it("shows both scores, the difference and its interval", () => {
    const score = {
      metric: "score",
      pairs: 200,
      before: 210,
      after: 314,
      difference: 104,
      low: 75,
      high: 133,
      unpaired: 0,
    };
    const won = { ...score, before: 0.17, after: 0.16, difference: -0.01, low: -0.04, high: 0.02 };
    const adapter = "models/2048/policies/10";
    const row = { name: "gpt", slice: "all", scenarios: 200, mean: 400, low: 380, high: 420 };
    const even = { before: 0.5, after: 0.5 };
    const summary: RunSummary = {
      seed: 0,
      ceiling: { name: "down-left", score: 320, won: 0.4 },
      styles: {
        ...{ clockwise: even, greedy: even, "up-right": even, corner: even },
        "down-left": { before: 0.41, after: 0.863 },
      },
      turns: 12_000,
      stages: { playing: 60.04, "training: optimize": 20, training: 30, "training: publish": 0.2 },
      ...{ policy: "2048@10", steps: 10, score, won, seconds: 125, out: "/x", adapter },
      table: [{ ...row, difference: 190, differenceLow: 170, differenceHigh: 210 }],
      curves: ["reward 4.9 ▁█ 5.4"],
    };
    const text = summaryText(summary, 64, null);
    expect(text).toContain("210 → 314   +104 [+75, +133]");
    expect(text).toContain("17% → 16%   -1% [-4%, +2%]");
    expect(text).toContain("Wall time 2 min 5 s");
    expect(text).toContain(`${adapter} in the server's data folder`);
    expect(text).toContain("gpt scores 400 [380, 420] on them");
    expect(text).toContain("reward 4.9 ▁█ 5.4");
    expect(text).toContain("It has learnt");
    expect(text).toContain("the down-left style, the best simple one, scores 320");
    expect(text).toContain("down-left 41 → 86%");
    expect(text).toContain(
      "playing 60.0 s, training 30.0 s (in training: optimize 20.0 s, publish 0.2 s)",
    );
    expect(hasLearnt({ score: { ...score, low: 0 } })).toBe(false);
    const chance = summaryText({ ...summary, score: { ...score, low: -1 } }, 64, null);
    expect(chance).toContain("chance may explain");
    const known = summaryText(summary, 64, "/x/server");
    expect(known).toContain("/x/server/models/2048/policies/10 (PEFT format)");
    expect(known).not.toContain("data folder");
    expect(summaryText({ ...summary, adapter: null }, 64, "/x/server")).not.toContain("Adapter");
  });

  it("promises to go on only where the server may still be there", () => {
    expect(stoppedText("mine", null)).toContain("On the same server, --name mine goes on");
    const known = stoppedText("mine", "/x/server");
    expect(known).toContain("/x/server");
    expect(known).not.toContain("goes on");
  });
});
