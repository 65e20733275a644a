import { expect, it } from "vitest";
import { createStageClock } from "./stages.ts";

it("adds up seconds by stage, of work that fails too", async () => {
  let now = 0;
  const clock = createStageClock(() => now);
  const take = (ms: number, result: () => number) => async () => {
    now += ms;
    return result();
  };
  expect(
    await clock.time(
      "playing",
      take(1500, () => 7),
    ),
  ).toBe(7);
  const failing = take(500, () => {
    throw new Error("no");
  });
  await expect(clock.time("playing", failing)).rejects.toThrow("no");
  for (const seconds of [2, 3]) {
    clock.onEvent({ type: "stage", stage: "publish", seconds, seq: 1, at: 0 });
  }
  expect(clock.seconds()).toEqual({ playing: 2, "training: publish": 5 });
});
