import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { fault } from "../faults/fault.ts";
import { releaseRollouts } from "../rollouts/records.ts";
import { requireSameBase } from "../policies/base-of.ts";
import { diskFullError } from "../store/files.ts";
import { commitPolicy, emitCommitted, isCommitted, publishNewest } from "./commit.ts";
import type { OperationContext } from "./context.ts";
import { type Emit, timed } from "./kinds/kind.ts";
import { kindOf } from "./kinds/kinds.ts";
import { isOver, operationInfo, type OperationRecord, updateOperation } from "./records.ts";

export interface Runner {
  /**
   * Runs the operation to its end, from wherever it stands: its kind does what comes before the commit point, then
   * the new policy is published. If the server ends meanwhile, it resolves without an end, and the next start goes on.
   */
  run(record: OperationRecord, signal: AbortSignal): Promise<void>;
  /** Ends an operation that has not begun as aborted. If its end cannot be written, nothing changes. */
  endUnbegun(record: OperationRecord): Promise<void>;
}

type Ending = Pick<OperationRecord, "status" | "error">;

const retryWriteMs = 2_000;

export function createRunner(context: OperationContext, serverEnds: AbortSignal): Runner {
  const { store, models, events, log } = context;

  async function work(record: OperationRecord, signal: AbortSignal): Promise<void> {
    const kind = kindOf(record);
    const emit = emitTo(context, record);
    if (record.fromStep !== null && isCommitted(context, record)) {
      // The server may have died between the commit and this event.
      emitCommitted(record, record.fromStep + 1, emit);
    } else {
      if (signal.aborted) throw new HoneError("The operation was aborted.", { code: "aborted" });
      await begin(record, emit);
      const outcome = await kind.run({ context, record, emit, signal });
      if (outcome === "nothing") return;
      if (outcome !== "publish") {
        await timed(emit, "commit", () => commitPolicy(context, record, outcome, emit, signal));
      }
    }
    // Past the commit point an abort comes too late; only the server's own end stops the publishing.
    await publishNewest(context, record, emit, serverEnds);
    tidyUp(record.model);
    record.result ??= kind.result(context, record, models.require(record.model).served, {});
  }

  async function begin(record: OperationRecord, emit: Emit): Promise<void> {
    const model = models.require(record.model);
    // It may have been submitted to an earlier server of this data directory.
    requireSameBase(model, context.base);
    const { learnt } = model;
    requireStep(record.model, record.expectedStep, learnt);
    const again = record.status === "running";
    record.status = "running";
    record.fromStep = learnt;
    await store.write([updateOperation(record)]);
    emit({ type: "started", step: learnt });
    if (again) {
      const message = "The server was restarted. The operation begins again.";
      emit({ type: "warning", message });
    }
  }

  /** Nobody waits for retention, because the user's step is done. What fails is tried again after the next step. */
  function tidyUp(model: string): void {
    context.retention.apply({ model }).catch((error: unknown) => {
      log.error({ model, err: error }, "old policies could not be removed");
    });
  }

  function failureOf(record: OperationRecord, error: unknown): Ending {
    const failure = HoneError.isInstance(error)
      ? error
      : (diskFullError(error) ??
        new HoneError(
          "The operation failed for a reason that was not foreseen. See the server's log.",
          { code: "internal_error", cause: error },
        ));
    const aborted = failure.code === "aborted";
    const details = { operation: record.id, model: record.model, code: failure.code, err: error };
    if (aborted) log.info({ operation: record.id, model: record.model }, "operation aborted");
    else log.error(details, "operation failed");
    return { status: aborted ? "aborted" : "failed", error: failure.toEnvelope().error };
  }

  /**
   * The end is told only when it is on disk together with everything that follows from it. So whoever hears of it
   * finds the rollouts free, and finds the same end after a restart. If it cannot be written (most likely the disk is
   * full), how the operation ends is decided all the same.
   */
  async function end(record: OperationRecord, ending: Ending): Promise<void> {
    const committed = isCommitted(context, record);
    const result = committed || ending.status === "succeeded" ? record.result : null;
    const over: OperationRecord = { ...record, ...ending, result };
    try {
      fault("operation.before-end");
      await events.append(
        record.id,
        { type: "ended", operation: operationInfo(over) },
        () => {
          if (!committed) context.rollouts.noteReleased(record.id);
          Object.assign(record, ending, { result });
        },
        [
          updateOperation(over),
          ...(committed ? [] : releaseRollouts(record.id)),
          ...(kindOf(record).forget?.(record) ?? []),
        ],
      );
      fault("operation.after-end");
    } catch (error) {
      log.error({ operation: record.id, err: error }, "the end of an operation cannot be written");
    }
  }

  return {
    async run(record, signal) {
      let ending: Ending = { status: "succeeded", error: null };
      try {
        await work(record, signal);
      } catch (error) {
        // The next start goes on with it.
        if (serverEnds.aborted) return;
        ending = failureOf(record, error);
      }
      while (!serverEnds.aborted) {
        await end(record, ending);
        if (isOver(record)) return;
        await delay(retryWriteMs, undefined, { signal: serverEnds }).catch(() => undefined);
      }
    },

    endUnbegun(record) {
      const message = "The operation was aborted before it began.";
      return end(record, failureOf(record, new HoneError(message, { code: "aborted" })));
    },
  };
}

/** Writes events of an operation. The operation does not wait until they are on disk. */
export function emitTo({ events, log }: OperationContext, { id }: OperationRecord): Emit {
  return (event) => {
    events.append(id, event).catch((error: unknown) => {
      log.error({ operation: id, err: error }, "an event could not be written");
    });
  };
}

export function requireStep(model: string, expected: number | null, learnt: number): void {
  if (expected === null || expected === learnt) return;
  throw new HoneError(
    `You expect the model "${model}" to be at step ${expected}; it is at step ${learnt}. Read its state, then decide what to train.`,
    { code: "step_mismatch", param: "expectedStep" },
  );
}
