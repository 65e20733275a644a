import type {
  OperationInfo,
  OperationResult,
  OperationStatus,
  submitOperationSchema,
} from "@hone/core";
import type { z } from "zod";
import { fromJson, toJson } from "../store/json.ts";
import type { Statement } from "../store/store.ts";

export type ParsedSubmit = z.output<typeof submitOperationSchema>;
export type Op = ParsedSubmit["op"];
type OperationError = NonNullable<OperationInfo["error"]>;

export interface OperationRecord<O extends Op = Op, W = unknown> {
  readonly id: string;
  readonly model: string;
  readonly keyId: string;
  readonly clientToken: string;
  readonly bodySha: string;
  readonly expectedStep: number | null;
  readonly op: O;
  readonly createdAt: number;
  status: OperationStatus;
  /** The step N at which it began. */
  fromStep: number | null;
  /** What its kind stored, so that it is done in the same way again after a restart. */
  work: W | null;
  result: OperationResult | null;
  error: OperationError | null;
  /** How often the worker died during it. */
  deaths: number;
  abortRequested: boolean;
}

interface OperationRow {
  id: string;
  model: string;
  key_id: string;
  client_token: string;
  body_sha: string;
  expected_step: number | null;
  op: string;
  status: OperationStatus;
  from_step: number | null;
  work: string | null;
  result: string | null;
  error: string | null;
  deaths: number;
  abort_requested: number;
  created_at: number;
}

export const selectOperation = "SELECT * FROM operations WHERE id = ?";
export const selectByToken =
  "SELECT * FROM operations WHERE model = ? AND key_id = ? AND client_token = ?";
export const selectUnfinished =
  "SELECT * FROM operations INDEXED BY operations_unfinished WHERE status IN ('queued', 'running') ORDER BY number";

export function readOperation(given: unknown): OperationRecord {
  const row = given as OperationRow;
  return {
    id: row.id,
    model: row.model,
    keyId: row.key_id,
    clientToken: row.client_token,
    bodySha: row.body_sha,
    expectedStep: row.expected_step,
    op: JSON.parse(row.op) as Op,
    createdAt: row.created_at,
    status: row.status,
    fromStep: row.from_step,
    work: fromJson(row.work),
    result: fromJson(row.result) as OperationResult | null,
    error: fromJson(row.error) as OperationError | null,
    deaths: row.deaths,
    abortRequested: row.abort_requested === 1,
  };
}

export function insertOperation(record: OperationRecord): Statement {
  return {
    sql: `INSERT INTO operations (id, model, key_id, type, client_token, body_sha, expected_step, op, status,
            created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    args: [
      record.id,
      record.model,
      record.keyId,
      record.op.type,
      record.clientToken,
      record.bodySha,
      record.expectedStep,
      JSON.stringify(record.op),
      record.status,
      record.createdAt,
    ],
  };
}

export function updateOperation(record: OperationRecord): Statement {
  return {
    sql: `UPDATE operations SET status = ?, from_step = ?, work = ?, result = ?, error = ?, deaths = ?,
            abort_requested = ? WHERE id = ?`,
    args: [
      record.status,
      record.fromStep,
      toJson(record.work),
      toJson(record.result),
      toJson(record.error),
      record.deaths,
      record.abortRequested ? 1 : 0,
      record.id,
    ],
  };
}

/** Replaces what it was asked to do, off the main thread: both may be megabytes. */
export function updateOp(id: string, op: Op): Statement {
  return {
    sql: "UPDATE operations SET op = ? WHERE id = ?",
    args: [JSON.stringify(op), id],
    long: true,
  };
}

export function operationInfo(record: OperationRecord): OperationInfo {
  return {
    id: record.id,
    object: "operation",
    model: record.model,
    type: record.op.type,
    clientToken: record.clientToken,
    status: record.status,
    fromStep: record.fromStep,
    // The result is stored with the commit already, and is shown when the operation has ended.
    result: isOver(record) ? record.result : null,
    error: record.error,
    createdAt: record.createdAt,
  };
}

export function isOver(record: OperationRecord): boolean {
  return record.status !== "queued" && record.status !== "running";
}
