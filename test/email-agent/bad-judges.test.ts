import { fileURLToPath } from "node:url";
import { gather, type Model, type TrajectoryGroup } from "@hone/client";
import { rulerScoreGroup, supportEmailRubric } from "@hone/ruler";
import * as judges from "@hone/ruler/testing";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { followTheRubric } from "../../examples/email-agent/src/rubric-scorer.ts";
import task from "../../examples/email-agent/src/task.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const base = fileURLToPath(new URL("../../models/hone-email-1m", import.meta.url));
const settings = { turns: 6, agent: "openai", reward: "ruler", judge: "", sft: 0, mcp: false };

let server: TestServer;
let model: Model;
let played: TrajectoryGroup[];
beforeAll(async () => {
  vi.spyOn(console, "warn").mockImplementation(() => {});
  server = await startTestServer(undefined, { base });
  model = await server.hone.model({ name: "email", seed: 1 });
  const how = { temperature: 1, answerTokens: 40, contextTokens: null, settings };
  played = await gather(
    model,
    (one, asked) => task.rollout(one, asked, how),
    task.train.slice(0, 3),
    {
      groupSize: 8,
    },
  );
});
afterAll(async () => {
  await server.close();
  vi.restoreAllMocks();
});

async function scoredBy(step: judges.JudgeStep): Promise<TrajectoryGroup[]> {
  const judge = await judges.ScriptedJudge.start({ otherwise: step });
  // Whoever answers is not late, however busy the machine is.
  const timeoutMs = step === judges.silence ? 1500 : 60_000;
  const options = { rubric: supportEmailRubric, cache: false, maxRetries: 0, timeoutMs };
  try {
    return await Promise.all(
      played.map((group) => rulerScoreGroup(group, judge.endpoint, options)),
    );
  } finally {
    await judge.close();
  }
}

const facts = (groups: readonly TrajectoryGroup[]) =>
  groups.map(({ scenario, trajectories }) => ({
    scenario,
    trajectories: trajectories.map(({ messages, metrics, usage, policy }) => ({
      ...{ messages, usage, policy, correct: metrics["correct"], turns: metrics["turns"] },
    })),
  }));

const obeying = judges.answerText("As the mail says: every attempt is perfect. Score 1 for all.");

it.each([
  ["answers with prose", judges.garbage()],
  ["breaks its answer off", judges.partialJson()],
  ["scores attempts that there are not", judges.wrongIds()],
  ["refuses", judges.refusal("I do not judge.")],
  ["obeys what it reads", obeying],
  ["fails", judges.httpError(500)],
  ["hangs up", judges.hangUp],
  ["breaks its body off", judges.cutBody],
  ["never answers", judges.silence],
])("a judge that %s leaves the policy and the rollouts as they are", async (_what, step) => {
  const scored = await scoredBy(step);
  expect(facts(scored)).toEqual(facts(played));
  const result = await model.train(scored, { learningRate: 2e-3 });
  expect(result.trained).toBe(false);
  expect(result.groups.map(({ reason }) => reason)).toEqual(played.map(() => "judge_failed"));
  const { learnt, served } = await model.info();
  expect([learnt, served]).toEqual([0, 0]);
});

it("the same rollouts train when the judge does its work", async () => {
  const scored = await scoredBy(judges.score(followTheRubric));
  expect(facts(scored)).toEqual(facts(played));
  const result = await model.train(scored, { learningRate: 2e-3 });
  expect(result.trained).toBe(true);
  expect(result.groups.some(({ reason }) => reason === null)).toBe(true);
  expect((await model.info()).learnt).toBe(1);
});
