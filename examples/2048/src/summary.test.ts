import type { Trajectory, TrajectoryGroup } from "@hone/client";
import { expect, it } from "vitest";
import { styleMetric, styleNames } from "./styles.ts";
import { summarize } from "./summary.ts";

const styles = Object.fromEntries(styleNames.map((name) => [styleMetric(name), 0.5]));

/** Games by their scores; null is one that failed. */
function games(policy: string, scores: (number | null)[], cut = 0): TrajectoryGroup[] {
  return scores.map((score, seed) => {
    const metrics = { score, won: 0, cut, ...styles };
    const failure = { rolloutId: null, type: "Error", message: "lost", duringCall: null };
    return {
      ...{ id: `${seed}`, scenario: { seed }, metadata: {}, metrics: {}, logs: [] },
      trajectories: score === null ? [] : [{ policy, metrics } as unknown as Trajectory],
      exceptions: score === null ? [failure] : [],
    };
  });
}

it("says how many games count, and which failed or were cut", () => {
  const before = games("m@0", [100, null, 120, 130, 140, 150, 160, 170]);
  const after = games("m@9", [null, 90, 20, 30, 40, 50, 60, 70], 1);
  const summary = summarize({
    ...{ before, after, name: "m" },
    others: { evaluations: { "openai/x": games("x", [7]) }, failures: { "openai/y": "gone" } },
    totals: { starts: 2, seconds: 5, stages: {}, turns: 10 },
    run: {
      ...{ steps: 9, seed: 0, curves: [], out: "/x", adapter: null },
      ceiling: { name: "corner", score: 300, won: 0.5 },
    },
  });
  expect(summary).toMatchObject({
    // Of the first game that did not fail.
    policy: "m@9",
    outcome: "worse",
    score: { pairs: 6, unpaired: 2, difference: -100 },
    games: 8,
    failed: { base: 1, trained: 1 },
    notCompared: { "openai/y": "gone" },
    starts: 2,
  });
  expect(summary.cut).toEqual({ trained: 1 });
  expect(summary.table.map(({ name }) => name)).toEqual(["base", "trained", "openai/x"]);
});
