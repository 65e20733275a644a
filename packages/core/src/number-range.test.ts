import { expect, it } from "vitest";
import { numberReader, requireNumber, type NumberRange } from "./number-range.ts";

class Refusal extends Error {}

it.each<[NumberRange, string[], string[], string]>([
  [
    { whole: true, least: 0 },
    ["0", " 12 ", "1e3"],
    ["", " ", "-1", "1.5", "9007199254740993", "two", "Infinity"],
    "a whole number of at least 0",
  ],
  [
    { whole: true, least: 1, most: 100 },
    ["1", "100"],
    ["0", "101"],
    "a whole number from 1 to 100",
  ],
  [{ above: 0, most: 1 }, ["0.1", "1"], ["0", "1.1"], "a number above 0 and at most 1"],
  [{}, ["-1.5"], ["", "Infinity", "NaN"], "a number"],
])("a number of %j", (range, right, wrong, words) => {
  const read = numberReader(range, Refusal);
  for (const text of right) {
    expect(read(text)).toBe(Number(text));
    expect(requireNumber("steps", Number(text), range)).toBe(Number(text));
  }
  for (const text of wrong) {
    expect(() => read(text)).toThrow(Refusal);
    expect(() => read(text)).toThrow(`It must be ${words}.`);
  }
});

it("names the option and what was given", () => {
  const whole = { whole: true, least: 1 };
  const error = { code: "invalid_config", param: "steps" };
  expect(() => requireNumber("steps", 0.5, whole)).toThrow(expect.objectContaining(error));
  expect(() => requireNumber("steps", 0.5, whole)).toThrow(
    "steps must be a whole number of at least 1, not 0.5.",
  );
  expect(() => requireNumber("steps", "3", whole)).toThrow(/not the text "3"\.$/);
});
