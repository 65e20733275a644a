import { HoneError, newId, type OperationInfo } from "@hone/core";
import pLimit, { type LimitFunction } from "p-limit";
import { fault } from "../faults/fault.ts";
import { requireSameBase } from "../policies/base-of.ts";
import { claimRollouts } from "../rollouts/records.ts";
import { nextTurn } from "../store/pauses.ts";
import type { Statement } from "../store/store.ts";
import { rollForward } from "./commit.ts";
import type { OperationContext } from "./context.ts";
import { kindOf } from "./kinds/kinds.ts";
import { operationSha } from "./operation-sha.ts";
import { createQueue } from "./queue.ts";
import {
  insertOperation,
  operationInfo,
  type OperationRecord,
  type ParsedSubmit,
  readOperation,
  selectByToken,
  selectOperation,
  selectUnfinished,
  updateOperation,
} from "./records.ts";
import { createRunner, emitTo, requireStep } from "./run.ts";

export interface Operations {
  submit(keyId: string, model: string, body: ParsedSubmit): Promise<OperationInfo>;
  get(keyId: string, id: string): OperationInfo;
  abort(keyId: string, id: string): Promise<OperationInfo>;
  /** While it runs, no operation of the model is accepted. */
  exclusively<T>(model: string, work: () => Promise<T>): Promise<T>;
  /** Resolves when the running one has ended too. */
  abortAll(model: string): Promise<void>;
  /** Ids of a model's operations that are queued or running, in their order: of all keys, or of one. */
  unfinished(model: string, keyId?: string): string[];
  /** Policies of a model that operations, queued or running, of any model will read besides the newest ones. */
  readsOf(model: string): number[];
  /** Begins to work on what is queued, and goes on with what a restart cut off. */
  start(): void;
  /** Stops without ending anything: running operations are redone at the next start. */
  close(): Promise<void>;
}

export async function createOperations(context: OperationContext): Promise<Operations> {
  const { store, models } = context;
  const submissions = new Map<string, LimitFunction>();
  const serverEnds = new AbortController();
  const runner = createRunner(context, serverEnds.signal);
  // Holds operations that are queued or running. All others are read from the database.
  const queue = createQueue({ ...runner, writeAbort, log: context.log });

  for (const row of store.all(selectUnfinished)) queue.add(readOperation(row));
  for (const record of queue.unfinished()) {
    await rollForward(context, record, emitTo(context, record));
  }

  /** If it cannot be written, the abort counts as not heard, and can be asked for again. */
  async function writeAbort(record: OperationRecord): Promise<void> {
    record.abortRequested = true;
    try {
      await store.write([updateOperation(record)]);
    } catch (error) {
      record.abortRequested = false;
      throw error;
    }
  }

  function find(keyId: string, id: string): OperationRecord {
    const known = queue.find(id);
    const row = known ? undefined : store.get(selectOperation, id);
    const record = known ?? (row === undefined ? null : readOperation(row));
    if (record?.keyId === keyId) return record;
    throw new HoneError(`There is no operation "${id.slice(0, 80)}" of this key.`, {
      code: "operation_not_found",
      param: "id",
    });
  }

  function findByToken(model: string, keyId: string, token: string): OperationRecord | null {
    for (const record of queue.unfinished(model)) {
      if (record.keyId === keyId && record.clientToken === token) return record;
    }
    const row = store.get(selectByToken, model, keyId, token);
    return row === undefined ? null : readOperation(row);
  }

  /** Submissions of a model take turns, so that each sees which rollouts the ones before have claimed. */
  function exclusively<T>(model: string, work: () => Promise<T>): Promise<T> {
    const limit = submissions.get(model) ?? pLimit(1);
    submissions.set(model, limit);
    return limit(work);
  }

  async function accept(keyId: string, name: string, body: ParsedSubmit): Promise<OperationInfo> {
    const bodySha = await operationSha(body);
    const existing = findByToken(name, keyId, body.clientToken);
    if (existing) {
      if (existing.bodySha === bodySha) return operationInfo(existing);
      throw new HoneError(
        `The clientToken "${body.clientToken}" was used for another operation (${existing.id}). Use a new token for a new operation.`,
        { code: "client_token_reused", param: "clientToken" },
      );
    }
    const model = models.require(name);
    requireSameBase(model, context.base);
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
    await nextTurn();
    const claims = (await kindOf(record).validate?.(context, keyId, model, body.op)) ?? [];
    const ids = claims.map((claim) => claim.record.id);
    const statements: Statement[] = [insertOperation(record)];
    if (ids.length > 0) await context.ledger.settle(ids);
    for (const { record: rollout, reward } of claims) {
      if (rollout.status === "open" && reward !== null) {
        statements.push(...context.rollouts.finish(rollout, reward));
      }
    }
    await store.write([...statements, ...claimRollouts(ids, record.id)]);
    fault("operation.stored");
    context.rollouts.noteClaims(ids, record.id);
    queue.add(record);
    return operationInfo(record);
  }

  return {
    get: (keyId, id) => operationInfo(find(keyId, id)),

    submit(keyId, name, body) {
      models.require(name);
      return exclusively(name, () => accept(keyId, name, body));
    },

    async abort(keyId, id) {
      const record = find(keyId, id);
      await queue.abort(id);
      return operationInfo(record);
    },

    exclusively,
    async abortAll(model) {
      for (const { id } of queue.unfinished(model)) await queue.abort(id);
      await queue.idle(model);
    },

    unfinished: (model, keyId) =>
      queue
        .unfinished(model)
        .filter((one) => keyId === undefined || one.keyId === keyId)
        .map(({ id }) => id),
    readsOf: (model) =>
      queue
        .unfinished()
        .flatMap((record) => kindOf(record).reads?.(record) ?? [])
        .flatMap((one) => (one.model === model ? [one.step] : [])),
    start: () => queue.start(),

    async close() {
      serverEnds.abort();
      await queue.close();
    },
  };
}
