import { describe, expect, it } from "vitest";
import { durationText, stepLine, stoppedText, summaryText } from "./report.ts";
import type { RunSummary } from "./summary.ts";
import type { StepReport } from "./train-run.ts";

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
const adapter = "models/2048/policies/10";
const even = { before: 0.5, after: 0.5 };
const row = { name: "gpt", slice: "all", scenarios: 200, mean: 400, low: 380, high: 420 };
const summary: RunSummary = {
  seed: 0,
  outcome: "learnt",
  ceiling: { name: "down-left", score: 320, won: 0.4 },
  styles: {
    ...{ clockwise: even, greedy: even, "up-right": even, corner: even },
    "down-left": { before: 0.41, after: 0.863 },
  },
  turns: 12_000,
  stages: { playing: 60.04, "training: optimize": 20, training: 30, "training: publish": 0.2 },
  ...{ policy: "2048@10", steps: 10, seconds: 125, starts: 1, out: "/x", adapter },
  score,
  won: { ...score, before: 0.17, after: 0.16, difference: -0.01, low: -0.04, high: 0.02 },
  ...{ games: 200, failed: {}, cut: {}, notCompared: {} },
  table: [{ ...row, difference: 190, differenceLow: 170, differenceHigh: 210 }],
  curves: ["reward 4.9 ▁█ 5.4"],
};

describe("the summary", () => {
  it("shows both scores, the difference and its interval", () => {
    const text = summaryText(summary, 64, null);
    expect(text).toContain("The same 200 held-out games, played by the base and by 2048@10:");
    expect(text).toContain("210 → 314   +104 [+75, +133]");
    expect(text).toContain("17% → 16%   -1% [-4%, +2%]");
    expect(text).toMatch(/^Wall time 2 min 5 s$/m);
    expect(text).toContain(`${adapter} in the server's data folder`);
    expect(text).toContain("gpt scores 400 [380, 420] on them");
    expect(text).toContain("reward 4.9 ▁█ 5.4");
    expect(text).toContain("It has learnt");
    expect(text).not.toMatch(/[Ff]ailed|context was full|could not be compared/);
    expect(text).toContain("the down-left style, the best simple one, scores 320");
    expect(text).toContain("down-left 41 → 86%");
    expect(text).toContain(
      "playing 60.0 s, training 30.0 s (in training: optimize 20.0 s, publish 0.2 s)",
    );
    const chance = summaryText({ ...summary, score: { ...score, low: -1 } }, 64, null);
    expect(chance).toContain("chance may explain");
    const known = summaryText(summary, 64, "/x/server");
    expect(known).toContain("/x/server/models/2048/policies/10 (PEFT format)");
    expect(known).not.toContain("data folder");
    expect(summaryText({ ...summary, adapter: null }, 64, "/x/server")).not.toContain("Adapter");
  });

  it("says that it got worse where the whole interval lies below 0", () => {
    const worse = { ...score, after: 110, difference: -100, low: -120, high: -80 };
    const text = summaryText({ ...summary, score: worse }, 64, null);
    expect(text).toContain("210 → 110   -100 [-120, -80]");
    expect(text).toContain("It got worse: the whole interval lies below 0.");
    expect(text).not.toContain("chance");
  });

  it("says how many games count, which failed or were cut, and who could not be compared with", () => {
    const partly = {
      ...summary,
      score: { ...score, pairs: 195, unpaired: 5 },
      failed: { base: 2, trained: 3 },
      cut: { base: 0.012, "openai/gpt": 0.25 },
      notCompared: { "openai/o": "401 wrong key" },
    };
    const text = summaryText(partly, 64, null);
    expect(text).toContain(
      "The same 195 held-out games (of 200, without those that failed), played",
    );
    expect(text).toContain("Failed, and counted for nobody: base 2, trained 3");
    expect(text).toContain("Ended because the context was full: base 1.2%, openai/gpt 25%");
    expect(text).toContain("openai/o could not be compared with: 401 wrong key");
  });

  it("tells of a run's starts, and rounds its time before it splits it", () => {
    expect(summaryText({ ...summary, starts: 3 }, 64, null)).toMatch(
      /^Wall time 2 min 5 s over 3 starts$/m,
    );
    expect([59.4, 119.7, 120].map(durationText)).toEqual(["0 min 59 s", "2 min 0 s", "2 min 0 s"]);
  });

  it("promises to go on only where the server may still be there", () => {
    expect(stoppedText("mine", null)).toContain("On the same server, --name mine goes on");
    const known = stoppedText("mine", "/x/server");
    expect(known).toContain("/x/server");
    expect(known).not.toContain("goes on");
  });
});
