import { expect, it } from "vitest";
import { teacherOrder, teacherTable, type TeacherRow } from "./table.ts";

const row = (reward: string, figures: [number, number, number], gain: number): TeacherRow => {
  const [variance, onPolicy, offPolicy] = figures;
  const mean = (onPolicy + offPolicy) / 2;
  const combined = (variance + mean) / 2;
  const accuracy = { onPolicy, offPolicy, mean };
  return { reward, onPolicyShare: null, variance, accuracy, combined, gain, low: null, high: null };
};

const rows = [
  row("flat", [0.1, 1, 1], 0.1),
  row("truth", [0.3, 1, 1], 0.6),
  { ...row("on", [0.9, 0.8, 0.6], 0.9), onPolicyShare: 1, low: 0.7, high: 1.1 },
];

it("says how each figure orders the gains", () => {
  const order = teacherOrder(rows);
  expect(order.combined).toBeCloseTo(1, 12);
  expect(order.variance).toBeCloseTo(1, 12);
  // Ranks 2.5, 2.5, 1 against 1, 2, 3.
  expect(order.accuracy).toBeCloseTo(-Math.sqrt(3) / 2, 12);
  expect(teacherOrder(rows.slice(0, 2)).accuracy).toBeNull();
});

it("prints the rewards in the order of their combined score", () => {
  const text = teacherTable(rows);
  const lines = text.split("\n");
  expect(lines.slice(1, 4).map((line) => line.split(" ")[0])).toEqual(["on", "truth", "flat"]);
  expect(lines[1]).toMatch(
    /^on +100% +0\.900 +0\.800 +0\.600 +0\.800 +\+0\.900 \[\+0\.700, \+1\.100\]$/,
  );
  expect(text).toMatch(
    /combined 1\.00, accuracy -0\.87 \(on-policy alone -0\.87\), variance 1\.00/,
  );
});

it("says of a policy whose reward trained it in fewer steps, or in none", () => {
  const text = teacherTable([...rows, { ...rows[0]!, trained: { steps: 0, of: 20 } }]);
  expect(text).toMatch(
    /\nflat: 0 of 20 steps trained, as its scores told no answers apart any more\.\n/,
  );
});
