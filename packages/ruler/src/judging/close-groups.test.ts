import { expect, it, onTestFinished } from "vitest";
import { garbage, score, ScriptedJudge, type JudgeStep } from "../testing/index.ts";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "./score-group.ts";

const four = groupOf("a", "b", "c", "d");
const worth: Record<string, number> = { a: 0.2, b: 0.4, c: 0.6, d: 0.8 };
/** All alike where it sees four, and clear where it sees two. */
const shy = score(({ finalText }, { attempts }) =>
  attempts.length > 2 ? 0.5 + (worth[finalText] ?? 0) / 100 : (worth[finalText] ?? 0),
);

async function judgeThat(otherwise: JudgeStep): Promise<ScriptedJudge> {
  const judge = await ScriptedJudge.start({ otherwise });
  onTestFinished(() => judge.close());
  return judge;
}

it("orders a close group by matches of two, and counts what they cost", async () => {
  const judge = await judgeThat(shy);
  const label = `${new URL(judge.endpoint.baseURL).host}/scripted`;
  const given = { cache: false, prices: { [label]: { input: 1, output: 1 } }, judgeNoise: 0.1 };
  const plain = await rulerScoreGroup(four, judge.endpoint, given);
  expect(judge.requests).toHaveLength(1);
  expect(plain.judgement.tournament).toBeNull();
  const scored = await rulerScoreGroup(four, judge.endpoint, {
    ...given,
    closeGroups: "tournament",
  });
  expect(judge.requests).toHaveLength(1 + 1 + 3);
  expect(scored.judgement).toMatchObject({ calls: 4, tournament: { matches: 3, failed: 0 } });
  expect(scored.metrics).toMatchObject({ "ruler/tournament_matches": 3 });
  expect(scored.judgement.costUsd).toBeGreaterThan(plain.judgement.costUsd ?? NaN);
  expect(rewardsOf(scored)[3]).toBe(1);
  expect(rewardsOf(scored)[0]).toBe(0);
});

it("leaves a group whose scores differ by more than the noise", async () => {
  const judge = await judgeThat(score(({ finalText }) => worth[finalText] ?? 0));
  const how = { cache: false, closeGroups: "tournament", judgeNoise: 0.1 } as const;
  const scored = await rulerScoreGroup(four, judge.endpoint, how);
  expect(judge.requests).toHaveLength(1);
  expect(rewardsOf(scored)).toEqual([0.2, 0.4, 0.6, 0.8]);
});

it("takes the spread between passes for the noise where none is given, and asks for one of the two", async () => {
  let calls = 0;
  const moody = score(({ finalText }, { attempts }) => {
    if (attempts.length === 2) return worth[finalText] ?? 0;
    calls += 1;
    return calls > attempts.length ? 0.9 : 0.1;
  });
  const judge = await judgeThat(moody);
  const how = { cache: false, closeGroups: "tournament" } as const;
  const scored = await rulerScoreGroup(four, judge.endpoint, { ...how, passes: 2 });
  expect(scored.judgement.tournament?.matches).toBe(3);
  await expect(rulerScoreGroup(four, judge.endpoint, how)).rejects.toThrow(/judgeNoise/);
});

it("a match without valid scores goes to the attempt that was liked better before", async () => {
  const judge = await ScriptedJudge.start({ script: [shy], otherwise: garbage() });
  onTestFinished(() => judge.close());
  const how = { cache: false, closeGroups: "tournament", judgeNoise: 0.1 } as const;
  const scored = await rulerScoreGroup(four, judge.endpoint, how);
  expect(scored.judgement).toMatchObject({
    status: "judged",
    tournament: { matches: 3, failed: 3 },
  });
  expect(rewardsOf(scored)[3]).toBe(1);
});
