import {
  type ForwardBackwardOp,
  type ForwardOp,
  HoneError,
  policyName,
  type ForwardResult,
} from "@hone/core";
import { fault } from "../../faults/fault.ts";
import { encodeTokenData, planData, type TokenPlan } from "../../step-data/token-data.ts";
import { type OperationRecord, updateOperation } from "../records.ts";
import { type OperationKind, timed } from "./kind.ts";
import { stepOnWorker } from "./worker-step.ts";

type Op = ForwardOp | ForwardBackwardOp;
type ForwardRecord = OperationRecord<
  Op,
  { plan: TokenPlan; /** What it is added to. */ earlier: { id: string; calls: number } | null }
>;

/** Logprobs of policy N on given ids. */
export const forward = pass(false);
/** And their gradient, which stays until N+1 is made. */
export const forwardBackward = pass(true);

function pass(backward: boolean): OperationKind<ForwardRecord> {
  return {
    async validate(context, _keyId, _model, op) {
      const { maxModelLen, vocabSize } = context.base;
      for (const [index, datum] of op.data.entries()) {
        const { length } = datum.tokens;
        if (length > maxModelLen) {
          throw new HoneError(
            `data[${index}] has ${length} tokens, the context holds ${maxModelLen}. Send shorter sequences.`,
            { code: "invalid_request", param: `op.data[${index}].tokens` },
          );
        }
        for (const name of ["tokens", "targets"] as const) {
          const at = datum[name].findIndex((id) => id >= vocabSize);
          if (at === -1) continue;
          const place = `data[${index}].${name}[${at}]`;
          throw new HoneError(
            `${place} is ${datum[name][at]}, and token ids of this base are 0 to ${vocabSize - 1}. Encode it with the base's own tokenizer.`,
            { code: "invalid_request", param: `op.${place}` },
          );
        }
      }
      return [];
    },

    async run(task) {
      const { context, record, emit } = task;
      const { gradients, models, store, checkpoints } = context;
      const { op } = record;
      const { name, learnt } = models.require(record.model);
      if (!record.work) {
        const found = "fresh" in op && !op.fresh ? await gradients.of(name, learnt) : null;
        record.work = {
          plan: await timed(emit, "plan", () => planData(op)),
          earlier: found && { id: found.operationId, calls: found.accumulated },
        };
        await store.write([updateOperation(record)]);
        fault("operation.planned");
      }
      const { plan, earlier } = record.work;
      if (backward) await gradients.sweep(name, earlier?.id ?? null);
      const made = await stepOnWorker(
        task,
        learnt + 1,
        [plan],
        (folders) =>
          encodeTokenData(op, {
            ...{ ...folders, plan, backward, operation_id: record.id, model: name },
            ...(earlier && { gradient: gradients.folder(name, earlier.id) }),
          }),
        "forward_backward",
      );
      if (backward) await gradients.keep(name, record.id, made.staging);
      else await checkpoints.discard(made.staging);
      const { loss, ...metrics } = made.metrics;
      record.work = null;
      record.result = {
        type: op.type,
        step: learnt,
        policy: policyName(name, learnt),
        loss: loss ?? 0,
        logprobs: made.logprobs,
        accumulated: backward ? (earlier?.calls ?? 0) + 1 : null,
        metrics,
      } satisfies ForwardResult;
      return "nothing";
    },

    result() {
      throw new HoneError("The operation makes no policy.", { code: "internal_error" });
    },
  };
}
