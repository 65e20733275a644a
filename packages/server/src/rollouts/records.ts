import type { PatchRollout, RolloutMode, RolloutStatus, Trajectory } from "@hone/core";
import { fromJson, toJson } from "../store/json.ts";
import type { Statement } from "../store/store.ts";

export interface RolloutRecord {
  readonly id: string;
  readonly keyId: string;
  readonly model: string;
  readonly mode: RolloutMode;
  readonly group: string | null;
  readonly scenario: unknown;
  /** Hash of the request that made it. It tells a repeated request from another one. */
  readonly bodySha: string;
  /** The step that it was made for; null for the newest served one. */
  readonly step: number | null;
  readonly createdAt: number;
  status: RolloutStatus;
  /** The policy of its first completion, and so of all that follow. */
  policyStep: number | null;
  reward: number | null;
  metrics: Trajectory["metrics"];
  metadata: Trajectory["metadata"];
  logs: string[];
  error: NonNullable<PatchRollout["error"]> | null;
  closedAt: number | null;
  /** The operation that trains or has trained it. */
  trainedBy: string | null;
}

interface RolloutRow {
  id: string;
  key_id: string;
  model: string;
  mode: RolloutMode;
  status: RolloutStatus;
  group_id: string | null;
  scenario: string | null;
  body_sha: string;
  step: number | null;
  policy_step: number | null;
  reward: number | null;
  metrics: string;
  metadata: string;
  logs: string;
  error: string | null;
  trained_by: string | null;
  created_at: number;
  closed_at: number | null;
}

export const selectRollout = "SELECT * FROM rollouts WHERE id = ?";
export const selectOpenRollouts = "SELECT * FROM rollouts WHERE status = 'open'";

export function readRollout(given: unknown): RolloutRecord {
  const row = given as RolloutRow;
  return {
    id: row.id,
    keyId: row.key_id,
    model: row.model,
    mode: row.mode,
    group: row.group_id,
    scenario: fromJson(row.scenario),
    bodySha: row.body_sha,
    step: row.step,
    createdAt: row.created_at,
    status: row.status,
    policyStep: row.policy_step,
    reward: row.reward,
    metrics: fromJson(row.metrics) as Trajectory["metrics"],
    metadata: fromJson(row.metadata) as Trajectory["metadata"],
    logs: fromJson(row.logs) as string[],
    error: fromJson(row.error) as RolloutRecord["error"],
    closedAt: row.closed_at,
    trainedBy: row.trained_by,
  };
}

export function insertRollout(record: RolloutRecord): Statement {
  return {
    sql: `INSERT INTO rollouts (id, key_id, model, mode, status, group_id, scenario, body_sha, step, metrics,
            metadata, logs, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '{}', '{}', '[]', ?)`,
    args: [
      record.id,
      record.keyId,
      record.model,
      record.mode,
      record.status,
      record.group,
      toJson(record.scenario),
      record.bodySha,
      record.step,
      record.createdAt,
    ],
  };
}

/** All that a rollout's own life changes; `trained_by` belongs to the operations. */
export function updateRollout(record: RolloutRecord): Statement {
  return {
    sql: `UPDATE rollouts SET status = ?, policy_step = ?, reward = ?, metrics = ?, metadata = ?, logs = ?,
            error = ?, closed_at = ? WHERE id = ?`,
    args: [
      record.status,
      record.policyStep,
      record.reward,
      JSON.stringify(record.metrics),
      JSON.stringify(record.metadata),
      JSON.stringify(record.logs),
      toJson(record.error),
      record.closedAt,
      record.id,
    ],
  };
}

export function claimRollouts(ids: readonly string[], operationId: string): Statement[] {
  return ids.map((id) => ({
    sql: "UPDATE rollouts SET trained_by = ? WHERE id = ?",
    args: [operationId, id],
  }));
}

/** The rollouts that an operation claimed are free again, except those that it trained. */
export function releaseRollouts(operationId: string, except: readonly string[] = []): Statement[] {
  return [
    {
      sql: "UPDATE rollouts SET trained_by = NULL WHERE trained_by = ?",
      args: [operationId],
      long: true,
    },
    ...claimRollouts(except, operationId),
  ];
}
