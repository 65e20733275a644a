import type { Model } from "@hone/client";
import type { TrajectoryGroup } from "@hone/core";

export async function other(model: Model, groups: TrajectoryGroup[]) {
  // #region other
  await model.train(groups, { type: "dapo", optimizerSteps: 2, epsilonHigh: 0.28 });
  // #endregion
}

export async function stay(model: Model, groups: TrajectoryGroup[]) {
  // #region stay
  const { metrics } = await model.train(groups, { type: "gspo", beta: 0.01 });
  console.log(`drift from the base: ${metrics["kl"]}`);
  // #endregion
}

export async function own(model: Model, groups: TrajectoryGroup[]) {
  // #region own
  await model.train(groups, { type: "custom", name: "best_of_group", options: { margin: 0.2 } });
  // #endregion
}
