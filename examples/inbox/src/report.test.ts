import { expect, it } from "vitest";
import { summaryText } from "./report.ts";
import type { RunSummary } from "./run.ts";

const row = { slice: "all", scenarios: 96, low: 0.3, high: 0.5 };
const summary: RunSummary = {
  policy: "inbox@14",
  steps: 14,
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
  learnt: true,
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
  trainingSeconds: 120,
  out: "/runs/one",
  adapter: "models/inbox/policies/14",
};

it("tells the verdict, the table and where the files are", () => {
  const text = summaryText(summary, "/data");
  expect(text).toContain("  all  trained greedy  0.70 [0.30, 0.50]   +0.30 [+0.20, +0.40]");
  expect(text).toContain("It has learnt: 0.40 → 0.70, difference +0.30 [+0.20, +0.40]");
  expect(text).not.toContain("Below the base");
  expect(text).toContain("3 min 5 s, of which 2 min 0 s");
  expect(text).toContain("/data/models/inbox/policies/14 (PEFT format)");
});

it("does not call it learnt where the interval holds 0, and names what got worse", () => {
  const verdict = { ...summary.verdict, difference: -0.1, low: -0.2, high: 0 };
  const [base, trained] = summary.table;
  if (!base || !trained) throw new Error("The table has two rows.");
  const table = [base, { ...trained, slice: "due first", difference: -0.1 }];
  const text = summaryText({ ...summary, verdict, table, learnt: false }, null);
  expect(text).toContain("It has not shown that it learnt");
  expect(text).toContain("-0.10 [-0.20, +0.00]");
  expect(text).toContain("Below the base: due first (trained greedy).");
});
