import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { JudgeBudget } from "./budget.ts";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import * as steps from "../testing/judge-steps.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";

const judges: ScriptedJudge[] = [];
const start = async (...script: steps.JudgeStep[]): Promise<ScriptedJudge> => {
  const judge = await ScriptedJudge.start({ script });
  judges.push(judge);
  return judge;
};
beforeEach(() => {
  // Pauses between attempts have no length.
  vi.spyOn(Math, "random").mockReturnValue(0);
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const judge of judges.splice(0)) await judge.close();
});

const byNumber = steps.score(({ finalText }) => Number.parseFloat(finalText));
const two = groupOf("0.1", "0.9");
const options = { cache: false, swallowErrors: false } as const;

describe("a judge's server that begins and does not go on", () => {
  it.each([false, true])("is left at the limit, blank lines %s", async (blankLines) => {
    const judge = await start(steps.silentBody({ blankLines }), byNumber, byNumber);
    const budget = new JudgeBudget({ limitUsd: 1 });
    const label = `${new URL(judge.endpoint.baseURL).host}/scripted`;
    const prices = { [label]: { input: 1, output: 1 } };
    // One place: it has to be given back for anything else to be asked.
    // Only the silent one may run out of time: an answer on a slow machine is an answer.
    const settings = { ...options, timeoutMs: 2_000, concurrency: 1, budget, prices };
    const first = rulerScoreGroup(two, judge.endpoint, settings);
    const second = rulerScoreGroup(groupOf("0.3", "0.4"), judge.endpoint, settings);
    expect(rewardsOf(await first)).toEqual([0.1, 0.9]);
    expect(rewardsOf(await second)).toEqual([0.3, 0.4]);
    // What may be on the bill counts, and nothing stays set aside.
    expect(budget.spentUsd).toBeGreaterThan(budget.unconfirmedUsd);
    (await budget.reserve(1 - budget.spentUsd - 1e-9))(0);
  });

  it("is left where a fetch of one's own knows no signal", async () => {
    const judge = await start();
    await expect(
      rulerScoreGroup(two, judge.endpoint, {
        ...options,
        timeoutMs: 100,
        maxRetries: 0,
        fetch: () => new Promise(() => undefined),
      }),
    ).rejects.toMatchObject({ failure: "timeout" });
  });

  it("may be waited for longer than a timer can be set", async () => {
    const judge = await start(byNumber);
    const settings = { ...options, timeoutMs: 2 ** 32, deadlineMs: 2 ** 33 };
    expect(rewardsOf(await rulerScoreGroup(two, judge.endpoint, settings))).toEqual([0.1, 0.9]);
  });
});
