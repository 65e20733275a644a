import { describe, expect, it } from "vitest";
import { createReporter, stepLine } from "./reporter.ts";
import type { RunEvent } from "./run-event.ts";

type StepEnded = Extract<RunEvent, { type: "step-ended" }>;
const event: StepEnded = {
  ...{ type: "step-ended", step: 2, steps: 10, metric: "score" },
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
    expect(stepLine(event)).toBe(
      // Trained steps are counted: the third batch was the second that trained something.
      "step 2/10 | reward 5.20 | score 216 | 7 of 8 groups differ | 4 answers | 901 tokens/s | played 4.3 s | " +
        "trained 3.1 s | loss -0.0123 | 2048@3 | dropped: 1 group zero_variance, 1 rollouts too_long, 2 rollouts failed",
    );
  });

  it("says how many groups a filled batch wanted", () => {
    const fill = { wanted: 8, drawn: 14, equal: 6, kept: 8, missing: 0 };
    const record = { ...event.record, variance: { groups: 8, of: 14 }, fill };
    expect(stepLine({ ...event, record })).toContain(" | 8 of 14 groups differ (8 wanted) | ");
  });

  it("says which side waited for the other, and how old the rollouts were", () => {
    const overlap = {
      ...{ played: 4, waitedForRollouts: 0.24, waitedForTraining: 1.26, resampled: 3 },
      staleness: { mean: 0.75, max: 1 },
    };
    expect(stepLine({ ...event, record: { ...event.record, overlap } })).toContain(
      " | waited 0.2 s for rollouts, 1.3 s for training | staleness 0.8 (most 1) | 3 stale rollouts played again | ",
    );
  });

  it("says that nothing trained", () => {
    const nothing: StepEnded = {
      ...event,
      record: { ...event.record, failed: 0, training: { loss: null } },
      result: {
        ...event.result,
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

describe("a run on a terminal and in a file", () => {
  const say = (isTTY: boolean, events: RunEvent[], columns = 40): string => {
    const written: string[] = [];
    const output = { isTTY, columns, write: (text: string) => written.push(text) > 0 };
    const report = createReporter(output);
    for (const one of events) report(one);
    return written.join("");
  };
  const warnings = [{ code: "flat", message: "Rewards do not differ." }];
  const evaluation: RunEvent[] = [
    { type: "began", label: "evaluating base", total: 4 },
    { type: "progressed", done: 3, note: "score 12" },
  ];
  const events: RunEvent[] = [
    { type: "started", out: "/runs/one" },
    ...evaluation,
    { type: "evaluated", label: "base", metric: "score", score: 12.345, seconds: 7.4 },
    { ...event, record: { ...event.record, warnings } },
    { type: "ended" },
  ];

  it("has a line for each thing that happened, and on a terminal how far it is", () => {
    expect(say(false, events)).toBe(
      `files: /runs/one\nevaluating base: 4 rollouts\nheld out, base: score 12.3 (7 s)\n${stepLine(event)}\n  ! Rewards do not differ.\n`,
    );
    expect(say(true, events)).toContain("evaluating base 75% score 12");
    expect(say(true, events)).toMatch(/differ\.\n$/);
  });

  it("keeps what it shows in one line, whatever a failed rollout said", () => {
    const failed: RunEvent = { type: "progressed", done: 3, note: "no\nroom" };
    const shown = say(true, [...evaluation, failed])
      .split("\r")
      .at(-1);
    expect(shown).toMatch(/75% no.*room$/);
    expect(shown).not.toContain("\n");
  });

  it("shows all of it where the terminal does not know how wide it is", () => {
    expect(say(true, evaluation, 0)).toMatch(/75% score 12$/);
  });

  it("ends the line that shows how far it is, so that an error begins on its own", () => {
    expect(say(true, [...evaluation, { type: "ended" }])).toMatch(/75% score 12\n$/);
    expect(say(false, [...evaluation, { type: "ended" }])).toBe("evaluating base: 4 rollouts\n");
  });
});
