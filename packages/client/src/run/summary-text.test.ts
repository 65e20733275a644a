import { expect, it } from "vitest";
import { durationText, summaryText } from "./summary-text.ts";
import type { RunSummary } from "./summary.ts";

const row = { slice: "all", scenarios: 96, low: 0.3, high: 0.5 };
const summary: RunSummary = {
  policy: "inbox@14",
  ...{ steps: 14, trained: 14, untrained: {} },
  seed: 0,
  metric: "exact",
  verdict: {
    metric: "exact",
    pairs: 96,
    before: 0.4,
    after: 0.7,
    difference: 0.3,
    low: 0.2,
    high: 0.4,
    unpaired: 0,
  },
  ...{ learnt: true, outcome: "learnt", worse: [], below: [] },
  ...{ heldOut: 96, failed: {}, starts: 1 },
  ...{ promptTokens: 900, completionTokens: 90, usd: 0 },
  ...{ evaluated: { rollouts: 192, seconds: 20, usd: 0 }, newestSteps: [] },
  watch: { phases: [], reasons: [], notes: [], stopped: null, alarms: [] },
  table: [
    {
      ...row,
      name: "base greedy",
      mean: 0.4,
      difference: null,
      differenceLow: null,
      differenceHigh: null,
    },
    {
      ...row,
      name: "trained greedy",
      mean: 0.7,
      difference: 0.3,
      differenceLow: 0.2,
      differenceHigh: 0.4,
    },
  ],
  curves: ["reward  ▁█"],
  seconds: 185.4,
  ...{ stages: { playing: 60.04, "training: optimize": 20, training: 30 }, turns: 12 },
  ...{ notCompared: {}, references: {} },
  metrics: { json: { before: 0.5, after: 1, difference: 0.5, low: 0.3, high: 0.7 } },
  out: "/runs/one",
  adapter: "models/inbox/policies/14",
};

it("tells the verdict, the table and where the files are", () => {
  const text = summaryText(summary, "/data");
  expect(text).toContain("  all  trained greedy  0.70 [0.30, 0.50]   +0.30 [+0.20, +0.40]");
  expect(text).toContain("It has learnt: 0.40 → 0.70, difference +0.30 [+0.20, +0.40]");
  expect(text).toContain('"exact" on 96 held-out scenarios, by the base and by inbox@14');
  expect(text).not.toMatch(/Below the base|Worse|[Ff]ailed|starts|could not be compared/);
  expect(text).toMatch(/^Wall time +3 min 5 s$/m);
  expect(text).toContain("playing 60.0 s, training 30.0 s (in training: optimize 20.0 s)");
  expect(text).toContain("  json  0.50 → 1.00   +0.50 [+0.30, +0.70]");
  expect(text).toContain("/data/models/inbox/policies/14 (PEFT format)");
});

const [, trained = summary.table[0]!] = summary.table;

it("does not call it learnt where the interval holds 0, and names what is below by chance", () => {
  const verdict = { ...summary.verdict, difference: -0.1, low: -0.2, high: 0 };
  const fell = { difference: -0.1, differenceLow: -0.3, differenceHigh: 0.1 };
  const below = [{ ...trained, slice: "due first", ...fell }];
  const unclear = { verdict, below, learnt: false, outcome: "unclear" } as const;
  const text = summaryText({ ...summary, ...unclear }, null);
  expect(text).toContain("It has not shown that it learnt");
  expect(text).toContain("-0.10 [-0.20, +0.00]");
  expect(text).toContain(
    "Below the base, as chance may explain: due first (trained greedy), -0.10 [-0.30, +0.10].",
  );
});

it("names the part that got worse by more than chance, and a whole that did", () => {
  const fell = { difference: -0.5, differenceLow: -0.8, differenceHigh: -0.2 };
  const worse = [{ ...trained, slice: "due first", ...fell }];
  const text = summaryText({ ...summary, worse, learnt: false, outcome: "slice-worse" }, null);
  expect(text).toContain("It has learnt in all but not everywhere: 0.40 → 0.70");
  expect(text).toContain("Worse than the base: due first (trained greedy), -0.50 [-0.80, -0.20].");
  const verdict = { ...summary.verdict, difference: -0.3, low: -0.4, high: -0.2 };
  const whole = summaryText({ ...summary, verdict, learnt: false, outcome: "worse" }, null);
  expect(whole).toContain("It got worse: 0.40 → 0.70, difference -0.30 [-0.40, -0.20]");
});

it("says how many scenarios count, which failed, and that it was started more than once", () => {
  const verdict = { ...summary.verdict, pairs: 93, unpaired: 3 };
  const failed = { "base greedy": 1, "trained greedy": 2 };
  const text = summaryText({ ...summary, verdict, failed, starts: 2 }, null);
  expect(text).toContain('"exact" on 93 of 96 held-out scenarios (those that did not fail), by');
  expect(text).toContain("Failed, and counted for nobody: base greedy 1, trained greedy 2");
  expect(text).toMatch(/^Wall time +3 min 5 s over 2 starts$/m);
});

it("shows no interval where there were too few", () => {
  const few = {
    low: -Infinity,
    high: Infinity,
    differenceLow: -Infinity,
    differenceHigh: Infinity,
  };
  const text = summaryText({ ...summary, table: [{ ...trained, ...few }] }, null);
  expect(text).toContain("0.70 [too few]   +0.30 [too few]");
});

it("rounds a time before it splits it", () => {
  expect([59.4, 119.7].map(durationText)).toEqual(["0 min 59 s", "2 min 0 s"]);
});

it("shows scores of hundreds without decimals, the task's own levels, and who could not be compared with", () => {
  const verdict = {
    ...summary.verdict,
    before: 210,
    after: 314,
    difference: 104,
    low: 75,
    high: 133,
  };
  const played = { ...trained, mean: 314, low: 290, high: 340 };
  const games = { ...played, difference: 104, differenceLow: 75, differenceHigh: 133 };
  const references = { "down-left style": 320.4 };
  const notCompared = { "openai/o": "401 wrong key" };
  const text = summaryText({ ...summary, verdict, table: [games], references, notCompared }, null);
  expect(text).toContain("314 [290, 340]   +104 [+75, +133]");
  expect(text).toContain("It has learnt: 210 → 314, difference +104 [+75, +133]");
  expect(text).toContain("down-left style, for comparison: 320");
  expect(text).toContain("openai/o could not be compared with: 401 wrong key");
  expect(text).toContain("models/inbox/policies/14 in the server's data folder (PEFT format)");
  expect(summaryText({ ...summary, adapter: null }, "/x/server")).not.toContain("Adapter");
});

it("says that nothing was trained, or where it ended before its last step, and why", () => {
  const untrained = { zero_variance: 60, judge_failed: 4 };
  const none = { learnt: false, outcome: "nothing-trained", trained: 0, untrained } as const;
  expect(summaryText({ ...summary, ...none }, null)).toMatch(
    /Nothing was trained \(groups of the newest batches: 60 zero_variance, 4 judge_failed\)/,
  );
  expect(summaryText({ ...summary, trained: 5, untrained }, null)).toContain(
    "5 of 14 steps are trained: then batches trained nothing (groups of the newest batches: 60",
  );
});

it("parts an alarm's step from the steps that had trained", () => {
  const alarm = { code: "same_output", message: "pink" } as const;
  const alarms = [
    { ...alarm, step: 3, trained: 2 },
    { ...alarm, step: 13, trained: 4 },
  ];
  expect(summaryText({ ...summary, watch: { ...summary.watch, alarms } }, null)).toContain(
    "Alarms: same_output (step 3), same_output (step 13 (after 4 that trained))",
  );
});
