import { describe, expect, it } from "vitest";
import { stepLine, stoppedText, summaryText } from "./report.ts";
import type { StepReport } from "./train-run.ts";

const report: StepReport = {
  step: 3,
  steps: 10,
  policy: "2048@3",
  rewardMean: 5.2,
  rewardStd: 0.71,
  scoreMean: 216.4,
  games: 62,
  failed: 2,
  tokensPerSecond: 901.2,
  gatherSeconds: 4.25,
  trainSeconds: 3.1,
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
      failed: 0,
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
    const summary = { policy: "2048@10", steps: 10, score, won, seconds: 125, out: "/x", adapter };
    const text = summaryText(summary, 64, null);
    expect(text).toContain("210 → 314   +104 [+75, +133]");
    expect(text).toContain("17% → 16%   -1% [-4%, +2%]");
    expect(text).toContain("Wall time 2 min 5 s");
    expect(text).toContain(`${adapter} in the server's data folder`);
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
