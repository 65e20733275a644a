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
