import { HoneError, type OptimStepOp, policyName } from "@hone/core";
import { checkpointName } from "../../policies/checkpoints.ts";
import { type OperationRecord, updateOperation } from "../records.ts";
import type { OperationKind } from "./kind.ts";
import { seedOf, stepOnWorker } from "./worker-step.ts";

type OptimRecord = OperationRecord<OptimStepOp, { accumulated: number }>;

/** Policy N+1 along the gradients that `forward_backward` has left of policy N. */
export const optimStep: OperationKind<OptimRecord> = {
  async run(task) {
    const { context, record } = task;
    const model = context.models.require(record.model);
    const gradient = await context.gradients.of(model.name, model.learnt);
    const policy = policyName(model.name, model.learnt);
    if (!gradient) throw nothingToStepAlong(policy);
    const { accumulated: expected } = record.op;
    if (expected !== undefined && expected !== gradient.accumulated) {
      throw new HoneError(
        `The gradient of ${policy} is of ${gradient.accumulated} call(s) of forward_backward, you expect ${expected}: ` +
          "one failed, or another program made some. Begin the step again: the first call with `fresh`.",
        { code: "no_gradient", param: "op.accumulated" },
      );
    }
    record.work = { accumulated: gradient.accumulated };
    await context.store.write([updateOperation(record)]);
    const step = model.learnt + 1;
    const seed = seedOf(model, step);
    const made = await stepOnWorker(
      task,
      step,
      [],
      (folders) =>
        Buffer.from(
          JSON.stringify({
            ...{ ...folders, operation_id: record.id, model: model.name, step, seed },
            ...{ lora: model.lora, optimizer: record.op.config, gradient: gradient.folder },
          }),
        ),
      "optim_step",
    );
    return { ...made, seed, objective: { type: gradient.loss } };
  },

  result: (_context, { model, work }, step, metrics) => ({
    type: "optim_step",
    step,
    policy: policyName(model, step),
    accumulated: work?.accumulated ?? 0,
    metrics,
    checkpoint: checkpointName(model, step),
  }),
};

function nothingToStepAlong(policy: string): HoneError {
  return new HoneError(
    `There is no gradient of ${policy} to step along. Call forward_backward first; gradients of an earlier policy are ` +
      "let go of when another operation makes a new one.",
    { code: "no_gradient" },
  );
}
