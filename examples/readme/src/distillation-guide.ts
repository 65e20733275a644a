import { ComparisonModel } from "@hone/client";
import type { Model } from "@hone/client";
import type { TrajectoryGroup } from "@hone/core";

export async function policy(student: Model, groups: TrajectoryGroup[]) {
  // #region policy
  const { metrics } = await student.train(groups, {
    type: "distill",
    teacher: { model: "teacher" }, // its newest served policy; { model, policy: 12 } for a certain one
    learningRate: 3e-4,
  });
  console.log(`KL to the teacher: ${metrics["distill/kl"]}`);
  // #endregion
}

export async function given(student: Model, groups: TrajectoryGroup[], url: string, key: string) {
  // #region given
  const teacher = new ComparisonModel({ baseURL: url, apiKey: key, model: "teacher" });
  const teacherLogprobs = await student.teacherLogprobs(groups, teacher);
  await student.train(groups, { type: "distill", teacher: "given", teacherLogprobs });
  // #endregion
}

export async function feedback(student: Model, groups: TrajectoryGroup[]) {
  // #region feedback
  const judged = "RULER explanation: "; // as rulerScoreGroup() leaves it in the logs
  await student.train(groups, {
    type: "distill",
    teacher: { feedback: true },
    feedback: ({ logs }) => logs.findLast((line) => line.startsWith(judged))?.slice(judged.length),
  });
  // #endregion
}
