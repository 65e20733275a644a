import { expect, it } from "vitest";
import { slotsFor, wantedSlots } from "./slots.ts";

it("are those that staleness allows and two more, for each model, without leaving no memory for many", () => {
  expect(slotsFor({ models: 0 })).toBe(6);
  expect(slotsFor({ models: 1 })).toBe(6);
  expect(slotsFor({ models: 2 })).toBe(12);
  expect(slotsFor({ models: 2, maxStaleness: 1 })).toBe(6);
  expect(slotsFor({ models: 1, maxStaleness: 0 })).toBe(2);
  expect(slotsFor({ models: 40, maxStaleness: 2 })).toBe(24);
  expect(wantedSlots({ models: 40, maxStaleness: 2 })).toBe(160);
  expect(slotsFor({ models: 3, maxStaleness: 30 })).toBe(32);
});
