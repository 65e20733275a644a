import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { tellWhileStarting } from "./starting.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("says of a long start that it goes on, of a short one nothing, and nothing once it is over", () => {
  const said: string[] = [];
  const stop = tellWhileStarting((line) => said.push(line));
  vi.advanceTimersByTime(9_900);
  expect(said).toEqual([]);
  vi.advanceTimersByTime(70_000);
  expect(said.map((line) => /for (\d+) s/.exec(line)?.[1])).toEqual(["10", "40", "70"]);
  stop();
  vi.advanceTimersByTime(100_000);
  expect(said).toHaveLength(3);
});
