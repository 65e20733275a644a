import { setTimeout as delay } from "node:timers/promises";
import { HoneError, newId, type OperationInfo } from "@hone/core";
import pLimit, { type LimitFunction } from "p-limit";
import { fault } from "../faults/fault.ts";
import { claimRollouts, releaseRollouts } from "../rollouts/records.ts";
import { canonicalSha256InTurns } from "../store/canonical.ts";
import { diskFullError } from "../store/files.ts";
import type { Statement } from "../store/store.ts";
import { type Emit, emitCommitted, noteTrained, publishNewest, recordPolicy } from "./commit.ts";
import type { OperationContext } from "./context.ts";
import type { NewEvent } from "./events.ts";
import { importPolicy } from "./kinds/import.ts";
import {
  insertOperation,
  isOver,
  operationInfo,
  type OperationRecord,
  type ParsedSubmit,
  readOperation,
  selectByToken,
  selectOperation,
  selectUnfinished,
  updateOperation,
} from "./records.ts";
import { otherBase, requireStep, validateTrain } from "./submit.ts";
import { trainPolicy } from "./kinds/train.ts";

export interface Operations {
  submit(keyId: string, model: string, body: ParsedSubmit): Promise<OperationInfo>;
  get(keyId: string, id: string): OperationInfo;
  abort(keyId: string, id: string): Promise<OperationInfo>;
  /** While it runs, no operation of the model is accepted. */
  exclusively<T>(model: string, work: () => Promise<T>): Promise<T>;
  /** Resolves when the running one has ended too. */
  abortAll(model: string): Promise<void>;
  /** Ids of a model's operations that are queued or running, in their order. */
  unfinished(model: string): string[];
  /** Begins to work on what is queued, and goes on with what a restart cut off. */
  start(): void;
  /** Stops without ending anything: running operations are redone at the next start. */
  close(): Promise<void>;
}

interface Active {
  record: OperationRecord;
  controller: AbortController;
  /** The queue has come to it, and ends it. */
  taken: boolean;
  /** An abort that is being written. */
  aborting: Promise<void> | null;
  /** An end that does not wait for the queue, while it is being written. */
  ending: Promise<void> | null;
}

type Ending = Pick<OperationRecord, "status" | "error">;

const retryWriteMs = 2_000;

export async function createOperations(context: OperationContext): Promise<Operations> {
  const { store, models, events, log } = context;
  // What is queued or running; everything else is read from the database.
  const active = new Map<string, Active>();
  const queues = new Map<string, Active[]>();
  const submissions = new Map<string, LimitFunction>();
  const loops = new Map<string, Promise<void>>();
  let started = false;
  const closeSignal = new AbortController();

  for (const row of store.all(selectUnfinished)) enqueue(readOperation(row));
  for (const { record } of active.values()) await rollForward(record);

  function enqueue(record: OperationRecord): void {
    const entry: Active = {
      record,
      controller: new AbortController(),
      taken: false,
      aborting: null,
      ending: null,
    };
    if (record.abortRequested) entry.controller.abort();
    active.set(record.id, entry);
    const queue = queues.get(record.model) ?? [];
    queues.set(record.model, queue);
    queue.push(entry);
  }

  /** The folder of N+1 had its name, and the server died before the database knew. */
  async function rollForward(record: OperationRecord): Promise<void> {
    if (record.fromStep === null || isCommitted(record)) return;
    const step = record.fromStep + 1;
    const manifest = await context.checkpoints.readManifest(record.model, step);
    if (manifest?.operationId !== record.id) return;
    try {
      await context.checkpoints.verify(record.model, step);
    } catch (error) {
      log.error({ operation: record.id, step, err: error }, "the step will be redone");
      return;
    }
    fault("recovery.before-transaction");
    log.info({ operation: record.id, step }, "completing a commit that a restart cut off");
    await recordPolicy(context, record, step, manifest.metrics, emitTo(record));
  }

  function isCommitted(record: OperationRecord): boolean {
    if (record.fromStep === null) return false;
    return models.policy(record.model, record.fromStep + 1)?.operationId === record.id;
  }

  function emitTo(record: OperationRecord): Emit {
    return (event: NewEvent) => {
      events.append(record.id, event).catch((error: unknown) => {
        log.error({ operation: record.id, err: error }, "an event could not be written");
      });
    };
  }

  function kick(model: string): void {
    if (!started || closeSignal.signal.aborted || loops.has(model)) return;
    const loop = workOff(model)
      .catch((error: unknown) =>
        log.error({ model, err: error }, "the operations of a model stopped"),
      )
      .finally(() => {
        loops.delete(model);
        if ((queues.get(model)?.length ?? 0) > 0) kick(model);
      });
    loops.set(model, loop);
  }

  async function workOff(model: string): Promise<void> {
    const queue = queues.get(model) ?? [];
    for (let entry = queue[0]; entry && !closeSignal.signal.aborted; entry = queue[0]) {
      while (entry.ending) await entry.ending;
      if (!isOver(entry.record)) {
        entry.taken = true;
        await runToEnd(entry);
        if (!isOver(entry.record)) return;
        active.delete(entry.record.id);
      }
      queue.shift();
    }
  }

  async function runToEnd({ record, controller }: Active): Promise<void> {
    let ending: Ending = { status: "succeeded", error: null };
    try {
      await run(record, controller.signal);
    } catch (error) {
      // The next start goes on with it.
      if (closeSignal.signal.aborted) return;
      ending = failureOf(record, error);
    }
    while (!isOver(record) && !closeSignal.signal.aborted) {
      try {
        await end(record, ending);
      } catch (error) {
        // A full disk, most likely. The step itself is decided: only its end has to be written.
        log.error(
          { operation: record.id, err: error },
          "the end of an operation cannot be written",
        );
        await delay(retryWriteMs, undefined, { signal: closeSignal.signal }).catch(() => undefined);
      }
    }
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

  async function run(record: OperationRecord, signal: AbortSignal): Promise<void> {
    const emit = emitTo(record);
    if (record.fromStep !== null && isCommitted(record)) {
      // The server may have died before it could say so.
      emitCommitted(record, record.fromStep + 1, emit);
    } else {
      if (signal.aborted) throw new HoneError("The operation was aborted.", { code: "aborted" });
      await begin(record, emit);
      const { op } = record;
      if (op.type === "train" && !(await trainPolicy(context, record, op, emit, signal))) return;
      if (op.type === "import") await importPolicy(context, record, op.path, emit, signal);
    }
    // Past the commit point an abort comes too late; only the server's own end stops the publishing.
    await publishNewest(context, record, emit, closeSignal.signal);
    tidyUp(record.model);
    if (record.op.type === "publish") {
      const { served } = models.require(record.model);
      const policy = `${record.model}@${served}`;
      record.result = { type: "publish", step: served, policy, checkpoint: null };
    }
  }

  /** Not waited for: the user's step is done. What fails here is tried again after the next step. */
  function tidyUp(model: string): void {
    context.retention.apply({ model }).catch((error: unknown) => {
      log.error({ model, err: error }, "old policies could not be removed");
    });
  }

  async function begin(record: OperationRecord, emit: Emit): Promise<void> {
    const { learnt } = models.require(record.model);
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

  /**
   * Told only when it is on disk, and with all that follows from it: whoever hears of the end finds the
   * rollouts free, and finds the end also after a restart.
   */
  async function end(record: OperationRecord, ending: Ending): Promise<void> {
    const committed = isCommitted(record);
    const result = committed || ending.status === "succeeded" ? record.result : null;
    const over: OperationRecord = { ...record, ...ending, result };
    fault("operation.before-end");
    await events.append(
      record.id,
      { type: "ended", operation: operationInfo(over) },
      () => {
        if (!committed) noteTrained(context, record, []);
        Object.assign(record, ending, { result });
      },
      [updateOperation(over), ...(committed ? [] : releaseRollouts(record.id))],
    );
    fault("operation.after-end");
  }

  /** All of it or nothing: an abort that is not on disk was not heard, and can be asked for again. */
  async function requestAbort({ record, controller }: Active): Promise<void> {
    record.abortRequested = true;
    try {
      await store.write([updateOperation(record)]);
    } catch (error) {
      record.abortRequested = false;
      throw error;
    }
    controller.abort();
  }

  /** It need not wait for those before it to hear that it will not run. */
  async function endQueued({ record }: Active): Promise<void> {
    const message = "The operation was aborted before it began.";
    try {
      await end(record, failureOf(record, new HoneError(message, { code: "aborted" })));
      active.delete(record.id);
    } catch (error) {
      // The abort is on disk. The next one tries again, and so does the queue when it comes to it.
      log.error({ operation: record.id, err: error }, "the end of an operation cannot be written");
    }
  }

  function find(keyId: string, id: string): OperationRecord {
    const row = active.has(id) ? undefined : store.get(selectOperation, id);
    const record = active.get(id)?.record ?? (row === undefined ? null : readOperation(row));
    if (record?.keyId === keyId) return record;
    throw new HoneError(`There is no operation "${id.slice(0, 80)}" of this key.`, {
      code: "operation_not_found",
      param: "id",
    });
  }

  function findByToken(model: string, keyId: string, token: string): OperationRecord | null {
    for (const { record } of active.values()) {
      if (record.model === model && record.keyId === keyId && record.clientToken === token) {
        return record;
      }
    }
    const row = store.get(selectByToken, model, keyId, token);
    return row === undefined ? null : readOperation(row);
  }

  /** One at a time for each model: what one submission claims the next one has to see. */
  function exclusively<T>(model: string, work: () => Promise<T>): Promise<T> {
    const limit = submissions.get(model) ?? pLimit(1);
    submissions.set(model, limit);
    return limit(work);
  }

  async function abort(record: OperationRecord): Promise<OperationInfo> {
    const entry = active.get(record.id);
    if (!entry || isOver(record)) return operationInfo(record);
    if (entry.aborting || !record.abortRequested) {
      entry.aborting ??= requestAbort(entry).finally(() => void (entry.aborting = null));
      await entry.aborting;
    }
    if (record.status === "queued" && !entry.taken) {
      entry.ending ??= endQueued(entry).finally(() => void (entry.ending = null));
      await entry.ending;
    }
    return operationInfo(record);
  }

  async function accept(keyId: string, name: string, body: ParsedSubmit): Promise<OperationInfo> {
    const bodySha = await canonicalSha256InTurns({ expectedStep: body.expectedStep, op: body.op });
    const existing = findByToken(name, keyId, body.clientToken);
    if (existing) {
      if (existing.bodySha === bodySha) return operationInfo(existing);
      throw new HoneError(
        `The clientToken "${body.clientToken}" was used for another operation (${existing.id}). Use a new token for a new operation.`,
        { code: "client_token_reused", param: "clientToken" },
      );
    }
    const model = models.require(name);
    if (model.base !== context.base.name) throw otherBase(name, model.base, context.base.name);
    requireStep(name, body.expectedStep ?? null, model.learnt);
    const record: OperationRecord = {
      id: newId("op"),
      model: name,
      keyId,
      clientToken: body.clientToken,
      bodySha,
      expectedStep: body.expectedStep ?? null,
      op: body.op,
      createdAt: context.clock(),
      status: "queued",
      fromStep: null,
      work: null,
      result: null,
      error: null,
      deaths: 0,
      abortRequested: false,
    };
    const statements: Statement[] = [insertOperation(record)];
    const ids: string[] = [];
    if (body.op.type === "train") {
      const named = await validateTrain(context, keyId, model, body.op);
      await context.ledger.settle(named.map((rollout) => rollout.record.id));
      for (const { record: rollout, reward } of named) {
        ids.push(rollout.id);
        if (rollout.status === "open" && reward !== null) {
          statements.push(...context.rollouts.finish(rollout, reward));
        }
      }
      statements.push(...claimRollouts(ids, record.id));
    }
    await store.write(statements);
    fault("operation.stored");
    context.rollouts.noteClaims(ids, record.id);
    enqueue(record);
    kick(name);
    return operationInfo(record);
  }

  return {
    get: (keyId, id) => operationInfo(find(keyId, id)),

    submit(keyId, name, body) {
      models.require(name);
      return exclusively(name, () => accept(keyId, name, body));
    },

    abort: async (keyId, id) => abort(find(keyId, id)),

    exclusively,
    async abortAll(model) {
      for (const { record } of queues.get(model) ?? []) await abort(record);
      await loops.get(model);
    },

    unfinished: (model) =>
      (queues.get(model) ?? []).flatMap(({ record }) => (isOver(record) ? [] : record.id)),

    start() {
      started = true;
      for (const model of queues.keys()) kick(model);
    },

    async close() {
      closeSignal.abort();
      for (const { controller } of active.values()) controller.abort();
      await Promise.all(loops.values());
    },
  };
}
