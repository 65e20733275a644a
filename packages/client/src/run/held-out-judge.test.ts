import { expect, it } from "vitest";
import { group } from "../testing/run-log.ts";
import { askHeldOutJudge } from "./held-out-judge.ts";
import { requirePrice } from "./totals.ts";

it("takes no score whose price is none, and adds nothing to what was spent", async () => {
  const warnings: string[] = [];
  const heard = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", heard);
  let spent = 0;
  const prices = [0.5, Number.NaN, -3, 0.25];
  let asked = 0;
  const [judged] = await askHeldOutJudge(
    () => ({ score: 1, costUsd: prices[asked++] as number }),
    [group([1, 0, 1, 0])],
    {
      ...{ concurrency: 1, signal: new AbortController().signal, seed: null },
      onCost: (usd) => void (spent += requirePrice(usd, "A cost")),
    },
  );
  await new Promise((resolve) => setTimeout(resolve, 5));
  process.off("warning", heard);
  expect(judged?.trajectories.map(({ metrics }) => metrics["held_out_judge"])).toEqual([
    ...[1, undefined, undefined, 1],
  ]);
  expect(spent).toBe(0.75);
  expect(warnings.join()).toMatch(/failed for 2 of 4 rollouts.* A cost is a number of dollars/);
});
