import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { expect, it } from "vitest";
import { compare, evaluationTable } from "../evaluation/compare.ts";
import { decide } from "./verdict.ts";
import { requireEnough } from "./run-options.ts";

/** Of each order 12 mails, and how many of them are read exactly. */
function read(exact: Record<string, number>): TrajectoryGroup[] {
  return Object.entries(exact).flatMap(([order, right]) =>
    Array.from({ length: 12 }, (_, mail) => ({
      ...{ id: `${order} ${mail}`, scenario: { order, mail }, metadata: {}, metrics: {}, logs: [] },
      trajectories: [{ metrics: { exact: mail < right ? 1 : 0 } } as unknown as Trajectory],
      exceptions: [],
    })),
  );
}

function verdictOf(before: Record<string, number>, after: Record<string, number>) {
  const [base, trained] = [read(before), read(after)];
  const by = ({ order }: { order: string }) => order;
  const rows = evaluationTable({ base, trained }, { metric: "exact", by });
  const slices = rows.filter(({ name, slice }) => name === "trained" && slice !== "all");
  const { worse, below, ...rest } = decide(compare(base, trained, { metric: "exact" }), slices);
  const names = (list: typeof worse) => list.map(({ slice }) => slice);
  return { ...rest, worse: names(worse), below: names(below) };
}

it("passes where all is better, also with a mail less of one order", () => {
  expect(verdictOf({ a: 2, b: 1, c: 6 }, { a: 12, b: 10, c: 5 })).toEqual({
    ...{ learnt: true, outcome: "learnt" },
    ...{ worse: [], below: ["c"] },
  });
});

it("fails where one order got worse by more than chance, however much better the rest is", () => {
  expect(verdictOf({ a: 0, b: 0, c: 8 }, { a: 12, b: 12, c: 1 })).toEqual({
    ...{ learnt: false, outcome: "slice-worse" },
    ...{ worse: ["c"], below: [] },
  });
});

it("tells what got worse from what chance may explain", () => {
  expect(verdictOf({ a: 9, b: 9 }, { a: 0, b: 1 })).toMatchObject({ outcome: "worse" });
  expect(verdictOf({ a: 5, b: 5 }, { a: 6, b: 5 })).toMatchObject({
    ...{ learnt: false, outcome: "unclear", worse: [], below: [] },
  });
});

it("does not take a slice of a few for more than chance", () => {
  const scored = (exact: number): TrajectoryGroup[] =>
    Array.from({ length: 6 }, (_, mail) => ({
      ...{ id: `${mail}`, scenario: mail, metadata: {}, metrics: {}, logs: [], exceptions: [] },
      trajectories: [{ metrics: { exact } } as unknown as Trajectory],
    }));
  const all = { low: 0.2, high: 0.4 };
  const decided = (count: number) =>
    decide(
      all,
      evaluationTable(
        { base: scored(0.9).slice(0, count), trained: scored(0.1).slice(0, count) },
        { metric: "exact" },
      ).slice(1),
    );
  expect(decided(5)).toMatchObject({ learnt: true, below: [{ scenarios: 5 }] });
  expect(decided(6)).toMatchObject({ outcome: "slice-worse" });
});

it("lets no handful of scenarios decide", () => {
  expect(() => requireEnough(15, false)).toThrow(/15 held-out .* at least 16/);
  expect(() => requireEnough(15, true)).not.toThrow();
  expect(() => requireEnough(16, false)).not.toThrow();
});
