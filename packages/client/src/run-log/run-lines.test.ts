import { expect, it } from "vitest";
import type { RunRecord } from "./curves.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";
import { runLines } from "./run-lines.ts";
import type { StepRecord } from "./step-record.ts";

function step(n: number, rest: Partial<StepRecord> = {}): StepRecord {
  return {
    type: "step",
    step: n,
    policy: `m@${n}`,
    trained: true,
    reasons: {},
    rollouts: 8,
    failed: 0,
    reward: { mean: n / 4, std: 1, low: n / 4 - 0.125, high: n / 4 + 0.125 },
    metrics: {},
    variance: { groups: 3, of: 6 },
    answers: { distinct: 9 - n, top: [{ answer: "left\nor right", count: 2 * n }] },
    tokens: { mean: 10, min: 1, max: 20 },
    tokensPerSecond: 100,
    seconds: { gather: n, train: 2 * n, commit: 1 },
    training: { entropy: 1, "sampling/sampling_logp_difference/mean": 2e-6 },
    warnings: [],
    ...rest,
  };
}

function evaluation(label: string, at: number, rest: Partial<EvaluationRecord> = {}): RunRecord {
  return {
    type: "evaluation",
    ...{ label, step: at, metric: "exact", scenarios: 20, failed: 0 },
    score: { mean: (at + 1) / 4, low: 0.125, high: 0.875 },
    ...rest,
  };
}

it("shows the curves of the steps and the held-out scores, with what belongs to the last", () => {
  const lines = runLines([
    evaluation("base", 0),
    step(2),
    step(1),
    evaluation("step-1", 1),
    evaluation("step-2", 2),
    evaluation("gpt", 2, { comparison: true, scenarios: 3 }),
  ]);
  expect(lines).toEqual([
    "reward                 0.25 ▁█ 0.5 [0.375, 0.625]",
    "groups with variance   0.5 ▄▄ 0.5",
    'most frequent answer   0.25 ▁█ 0.5 "left\\nor right", 7 different',
    "entropy                1 ▄▄ 1",
    "sampler/trainer gap    0.000002 ▄▄ 0.000002",
    "tokens of a rollout    10 ▄▄ 10",
    "tokens a second        100 ▄▄ 100",
    "seconds of a step      3 ▁█ 6 gather 2, train 4",
    "held out exact: base   0.25 [0.125, 0.875]",
    "held out exact: step   0.5 ▁█ 0.75 [0.125, 0.875]",
    "held out exact: gpt    0.75",
  ]);
});

it("has no line for what has no data, and no interval of a few groups", () => {
  const bare = step(1, {
    ...{ rollouts: 0, reward: null, tokens: null, seconds: {}, training: {} },
    variance: { groups: 0, of: 0 },
    answers: { distinct: 0, top: [] },
  });
  expect(runLines([bare, evaluation("base", 0, { score: null })])).toEqual([
    "tokens a second        100 ▄ 100",
  ]);
  expect(runLines([])).toEqual([]);
  expect(runLines([step(1, { variance: { groups: 2, of: 5 } })])[0]).toMatch(/▄ 0.25$/);
});

it("shows what was drawn to fill the batches, and what the curriculum drew", () => {
  const bands = { unseen: 3, never: 4, sometimes: 2, always: 1 };
  const lines = runLines([
    step(1, {
      fill: { wanted: 4, drawn: 9, equal: 5, kept: 4, missing: 0 },
      curriculum: { success: 0.25, drawn: bands, all: bands },
    }),
  ]);
  expect(lines.slice(2, 4)).toEqual([
    "scenarios drawn        9 ▄ 9 4 wanted",
    "success of the drawn   0.25 ▄ 0.25 of all scenarios 4 never, 2 sometimes, 1 always, 3 not yet",
  ]);
});
