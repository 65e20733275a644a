import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { faults } from "./plan.ts";
import { noteResult, readResults, rowOf, stillToTry, type FaultResult } from "./results.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-fault-results-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const result: FaultResult = {
  ...{ fault: "a", what: "a | b", at: "2026-01-01T00:00:00Z", noticed: 0.44, back: 109.2 },
  ...{ said: "it ended", answers: 20, broken: 2, failed: 0, left: 0, wrong: [], load: 2 },
};

it("goes on after what was tried, also where the last line was cut off", () => {
  const file = join(folder, "results.jsonl");
  const some = [{ name: "a" }, { name: "b" }, { name: "c" }];
  expect(stillToTry(some, readResults(file))).toEqual(some);
  noteResult(file, { ...result, wrong: ["it hung"] });
  noteResult(file, { ...result, fault: "b", wrong: ["it hung"] });
  noteResult(file, result);
  appendFileSync(file, '{"fault": "c", "wh');
  // b was not as it should be, and c has no end.
  expect(stillToTry(some, readResults(file)).map(({ name }) => name)).toEqual(["b", "c"]);
  expect(readResults(file).get("a")).toEqual(result);
});

it("shows a result as a row of one table", () => {
  expect(rowOf(result)).toBe("| a / b | 0.4 | it ended | 109 | 20, 2, 0 | 0 | yes |");
  expect(rowOf({ ...result, noticed: null, wrong: ["x", "y"] })).toContain("| – |");
});

it("has one fault for each name", () => {
  const names = faults.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});
