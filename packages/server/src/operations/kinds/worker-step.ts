import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { fault } from "../../faults/fault.ts";
import { type TrainerEvent, workerCode, type WorkerRoute } from "../../ports/trainer.ts";
import type { Model } from "../../policies/models.ts";
import type { NewEvent } from "../events.ts";
import { type Plan, splitInPlan } from "../../step-data/plan.ts";
import { aborted, type Staged, type Task, timed } from "./kind.ts";
import { restartTimeoutMs } from "../ready.ts";
import { updateOperation } from "../records.ts";

/** The worker's deaths after which an operation is believed to be their cause. */
const maxDeaths = 3;
const busyPauseMs = 500;

/**
 * Has the worker make the files of `step` in a staging folder. A worker that dies is waited for, and the step done
 * again from the policy before it. `encode` gives the body of the worker's `route` for the folders of an attempt. `plan`
 * is that of the task's record: it is stored with what the trainer had to change in it. One that plans nothing is empty.
 */
export async function stepOnWorker(
  task: Task,
  step: number,
  plan: Plan,
  encode: (folders: { staging: string; checkpoint: string }) => Uint8Array,
  route: WorkerRoute = "train",
): Promise<Pick<Staged, "staging" | "files" | "metrics"> & { logprobs: number[][] }> {
  const { context, record, emit, signal } = task;
  const { checkpoints, ready } = context;
  for (;;) {
    let generation = ready.generation();
    let accepted = false;
    await checkpoints.requireSpace(record.model, step - 1);
    const staging = await checkpoints.stage(record.model, record.id, record.deaths);
    fault("operation.staged");
    try {
      const checkpoint = checkpoints.path(record.model, step - 1);
      const stepData = await timed(emit, "pack", () => encode({ staging, checkpoint }));
      const {
        metrics,
        files,
        logprobs = [],
      } = await context.trainTurn(() => {
        // The worker may have come up anew while this operation waited for its turn.
        generation = ready.generation();
        return context.trainer.train({
          operationId: record.id,
          route,
          stepData,
          signal,
          onAccepted() {
            accepted = true;
            fault("operation.accepted");
          },
          onEvent(event) {
            if (event.event === "split") {
              splitInPlan(plan, event.into);
              store(task);
            }
            const news = told(event);
            if (news) emit(news);
          },
        });
      });
      fault("operation.trained");
      if (!signal.aborted) return { staging, files, metrics, logprobs };
      throw aborted();
    } catch (error) {
      await checkpoints.discard(staging);
      if (signal.aborted) throw error;
      if (workerCode(error) === "busy") {
        // An operation that was aborted ends with its micro-batch, which can be long.
        await delay(busyPauseMs, undefined, { signal }).catch(() => undefined);
        continue;
      }
      if (!HoneError.isInstance(error) || error.code !== "worker_unavailable") throw error;
      // One that was away has not died of this operation.
      if (accepted) await countDeath(task, error);
      if (await ready.after(generation, restartTimeoutMs, signal)) continue;
      throw new HoneError("The worker did not come back. Restart the server, then train again.", {
        code: signal.aborted ? "aborted" : "train_failed",
        cause: error,
      });
    }
  }
}

/** The same for the same step of the same model: a redone operation draws the same numbers. */
export function seedOf(model: Model, step: number): number {
  return createHash("sha256").update(`${model.seed}:${model.name}:${step}`).digest().readUInt32LE();
}

/** Nobody waits: what cannot be written now ends the step when its policy is committed. */
function store({ context, record }: Task): void {
  context.store.write([updateOperation(record)]).catch((error: unknown) => {
    context.log.error({ operation: record.id, err: error }, "a changed plan cannot be stored");
  });
}

async function countDeath({ context, record, emit }: Task, cause: HoneError): Promise<void> {
  record.deaths++;
  await context.store.write([updateOperation(record)]);
  if (record.deaths >= maxDeaths) {
    throw new HoneError(
      `The worker died ${record.deaths} times during this operation, perhaps for want of memory. ` +
        "Train with a smaller maxTokensPerMicroBatch or fewer rollouts; its log says more.",
      { code: "train_failed", cause },
    );
  }
  emit({
    type: "warning",
    message: `The worker died. The step begins again when it is back (death ${record.deaths} of ${maxDeaths}).`,
  });
}

/** Null where a micro-batch was planned anew, which is no news for the model's user. */
function told(event: TrainerEvent): NewEvent | null {
  if (event.event === "stage") {
    return { type: "stage", stage: event.stage, seconds: event.seconds };
  }
  if (event.event !== "microbatch") {
    return event.message === undefined ? null : { type: "warning", message: event.message };
  }
  fault("operation.micro-batch");
  const { done, total, tokens } = event;
  return { type: "progress", done, total, tokens };
}
