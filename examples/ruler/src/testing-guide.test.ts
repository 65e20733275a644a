// #region testing
import { rulerScoreGroup } from "@hone/ruler";
import { garbage, score, ScriptedJudge, tooManyRequests } from "@hone/ruler/testing";
import { afterAll, beforeAll, expect, it } from "vitest";
import { exampleGroup } from "./example-group.ts";

let judge: ScriptedJudge;
beforeAll(async () => {
  judge = await ScriptedJudge.start({
    script: [
      tooManyRequests(0.1), // waited for
      garbage(), // told what was wrong, once
      score(({ finalText }) => (finalText.includes("9:40") ? 1 : 0)),
    ],
  });
});
afterAll(async () => {
  judge.assertDone(); // every step was used, no further request came
  await judge.close();
});

it("rewards answers that name the time", async () => {
  const scored = await rulerScoreGroup(exampleGroup, judge.endpoint, { cache: false });
  expect(scored.trajectories.map(({ reward }) => reward)).toEqual([1, 0]);
});
// #endregion
