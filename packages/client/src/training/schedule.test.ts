import { expect, it } from "vitest";
import { checkSchedule, scheduledRate, type Schedule } from "./schedule.ts";

const rates = (schedule: Schedule, steps = 11) =>
  Array.from({ length: steps }, (_, trained) => scheduledRate(2, schedule, { trained, steps }));

it("falls in a straight line or along a cosine, from the whole rate to its share at the last step", () => {
  expect(rates({ type: "linear" }).at(0)).toBe(2);
  expect(rates({ type: "linear" }).at(5)).toBeCloseTo(1.1, 12);
  expect(rates({ type: "linear" }).at(-1)).toBeCloseTo(0.2, 12);
  const cosine = rates({ type: "cosine", end: 0.5 });
  expect([cosine.at(0), cosine.at(5), cosine.at(-1)]).toEqual([2, 1.5, 1]);
  expect(cosine.at(2)).toBeGreaterThan(1.9);
  expect(new Set(rates({ type: "constant" }))).toEqual(new Set([2]));
});

it("keeps the whole rate where there is one step", () => {
  expect(rates({ type: "linear" }, 1)).toEqual([2]);
});

it.each([
  [{ type: "falling" }, /schedule.type is one of constant, linear, cosine, not "falling"/],
  [{ type: "linear", end: 0 }, /schedule.end is a share/],
  [{ type: "linear", last: 1 }, /last/],
  [{ type: "constant", end: 0.5 }, /schedule.end is for a rate that falls/],
])("refuses %j", (schedule, message) => {
  expect(() => checkSchedule("train()", schedule as Schedule)).toThrow(message);
});
