import { gather } from "@hone/client";
import type { Model, Rollout } from "@hone/client";
import type { ChatMessage, TrajectoryGroup } from "@hone/core";
import { JudgeBudget, JudgeError, ruler, rulerScoreGroup, supportEmailRubric } from "@hone/ruler";
import type { Judge } from "@hone/ruler";

export async function scoreGroup(group: TrajectoryGroup, judge: Judge = "openai/o4-mini") {
  // #region score
  const scored = await rulerScoreGroup(group, judge, { rubric: supportEmailRubric });
  for (const { reward, metrics, logs } of scored.trajectories) {
    console.log(reward, metrics["independent_reward"], logs.at(-1));
  }
  // #endregion
  return scored;
}

// #region loop
export async function trainWithJudge(
  model: Model,
  rollout: Rollout<{ question: string }>,
  scenarios: { question: string }[],
  judge: Judge,
  steps = 40,
) {
  const budget = new JudgeBudget({ limitUsd: 20 }); // over all calls that get it
  for await (const batch of model.batches(scenarios, { groupsPerStep: 8, steps })) {
    const groups = await gather(model, rollout, batch.scenarios, { groupSize: 8 });
    const scored = await Promise.all(groups.map((g) => rulerScoreGroup(g, judge, { budget })));
    const result = await model.train(scored, { batch });
    if (!result.trained) console.warn(result.reasons); // {judge_failed: 2, no_reward: 6}
  }
}
// #endregion

export async function ownEndpoint(group: TrajectoryGroup, url: string) {
  // #region endpoint
  return await rulerScoreGroup(
    group,
    { baseURL: url, model: "qwen3-32b", apiKey: process.env["JUDGE_KEY"] },
    { parameters: { temperature: 0.6, max_tokens: 4000 } },
  );
  // #endregion
}

export async function measureTheJudge(group: TrajectoryGroup, judge: Judge) {
  // #region passes
  const { judgement } = await rulerScoreGroup(group, judge, { passes: 4, cache: false });
  console.log(judgement.passSpread); // standard deviation of a score between the passes
  console.log(judgement.positionBias); // what being shown last instead of first adds to a score
  // #endregion
  return judgement;
}

export async function failLoudly(group: TrajectoryGroup, judge: Judge) {
  // #region failure
  try {
    return await rulerScoreGroup(group, judge, { swallowErrors: false });
  } catch (error) {
    if (!JudgeError.isInstance(error)) throw error;
    console.error(error.failure, error.message); // "quota_exhausted", and what to do about it
    return null;
  }
  // #endregion
}

export async function bareConversations(judge: Judge) {
  // #region conversations
  const question: ChatMessage = { role: "user", content: "When does the train leave?" };
  const { scores } = await ruler(
    [
      [question, { role: "assistant", content: "At 9:40 from platform 3." }],
      [question, { role: "assistant", content: "In the morning." }],
    ],
    judge,
  );
  console.log(scores.map((given) => given?.score));
  // #endregion
  return scores;
}
