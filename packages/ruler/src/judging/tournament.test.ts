import { expect, it } from "vitest";
import { tournament } from "./tournament.ts";

it("has a match fewer than entrants, and gives the share of rounds survived", async () => {
  const worth = [0.1, 0.9, 0.3, 0.5, 0.2, 0.8, 0.4, 0.6];
  const { scores, matches } = await tournament(8, 1, async (a, b) =>
    (worth[a] ?? 0) > (worth[b] ?? 0) ? a : b,
  );
  expect(matches).toBe(7);
  expect(scores[1]).toBe(1);
  expect(scores[0]).toBe(0);
  expect(scores.toSorted((a, b) => a - b)).toEqual([0, 0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1]);
});

it("lets one go on where a round is odd, and is the same for the same seed", async () => {
  const first = async (a: number) => a;
  const once = await tournament(5, 7, first);
  expect(once.matches).toBe(4);
  expect(once.scores.filter((score) => score === 1)).toHaveLength(1);
  expect(await tournament(5, 7, first)).toEqual(once);
  expect(await tournament(5, 8, first)).not.toEqual(once);
});

it("shows each side first about as often as second", async () => {
  let [lower, all] = [0, 0];
  for (let seed = 0; seed < 400; seed += 1) {
    await tournament(2, seed, async (a, b) => {
      all += 1;
      if (a < b) lower += 1;
      return a;
    });
  }
  // Four standard errors of a half in 400.
  expect(Math.abs(lower / all - 0.5)).toBeLessThan(0.1);
});
