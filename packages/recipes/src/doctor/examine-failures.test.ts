import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { expect, it } from "vitest";
import { examineJudges } from "./examine.ts";
import { functionJudge } from "./judges.ts";
import { groupsOf, qualityOf } from "./outputs.test-support.ts";

const groups = groupsOf({ groups: 40, outputs: 4, within: 0.2, between: 0.2, seed: 1 });

it("counts a judging that a function of one's own fails at as missing, and examines the others", async () => {
  let calls = 0;
  const flaky = functionJudge("flaky", (outputs) => {
    calls += 1;
    if (calls % 4 === 0) throw new Error("503 from behind it");
    return outputs.map(qualityOf);
  });
  const [report] = await examineJudges(groups, [flaky]);
  expect(report).toMatchObject({
    judgings: { asked: 80, valid: 60 },
    costUsdPerJudging: null,
    verdict: { level: "fail" },
  });
  expect(report?.errors).toMatchObject([{ message: "503 from behind it" }]);
});

it("asks no judge for anything more once one option is wrong", async () => {
  let judged = 0;
  const wrong = {
    label: "wrong",
    scale: null,
    async judge() {
      judged += 1;
      if (judged === 1) throw new HoneError("no", { code: "invalid_config", param: "rubric" });
      await delay(5);
      return { judgings: [], asked: 2, repaired: 0, costUsd: 0, seconds: 0, error: null };
    },
  };
  await expect(examineJudges(groups, [wrong])).rejects.toMatchObject({ code: "invalid_config" });
  await delay(60);
  expect(judged).toBeLessThanOrEqual(16);
});
