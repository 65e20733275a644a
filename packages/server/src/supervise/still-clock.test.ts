import { expect, it } from "vitest";
import { createStillClock } from "./still-clock.ts";

it("counts while there is work, rests while there is none, and begins anew once something got done", () => {
  let now = 0;
  const clock = createStillClock(() => now);
  now = 1_000;
  expect(clock.ms).toBe(0);
  for (let request = 0; request < 3; request++) {
    clock.hasWork(true);
    clock.hasWork(true);
    now += 900;
    clock.hasWork(false);
    now += 150;
  }
  expect(clock.ms).toBe(2_700);
  clock.hasWork(true);
  now += 100;
  expect(clock.ms).toBe(2_800);
  clock.moved();
  now += 40;
  expect(clock.ms).toBe(40);
  clock.hasWork(false);
  clock.moved();
  expect(clock.ms).toBe(0);
});
