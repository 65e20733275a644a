import { HoneError, type OperationResult } from "@hone/core";
import type { Manifest } from "../../policies/checkpoints.ts";
import type { Model } from "../../policies/models.ts";
import type { RolloutRecord } from "../../rollouts/records.ts";
import type { OperationContext } from "../context.ts";
import type { NewEvent } from "../events.ts";
import { nextTurn } from "../../store/pauses.ts";
import type { Statement } from "../../store/store.ts";
import type { OperationRecord } from "../records.ts";

/**
 * All that is peculiar to one kind of operation. The queue, the commit, the publishing and the recovery after a
 * restart are the same for every kind and ask it; docs/decisions/0025 says how they meet.
 */
export interface OperationKind<R extends OperationRecord = OperationRecord> {
  /**
   * Refuses what can be known to be wrong before the operation is queued. Resolves to the rollouts that it claims:
   * they are its own until it ends, and no other operation may name them.
   */
  validate?(
    context: OperationContext,
    keyId: string,
    model: Model,
    op: R["op"],
  ): Promise<readonly Claim[]>;
  /** Policies that it will read besides the newest one of its model: retention leaves them until it has ended. */
  reads?(record: R): readonly { model: string; step: number }[];
  /** Of the rollouts that it claimed those that its step used up; the others are free again. */
  used?(record: R): readonly string[];
  /** Of what is stored for it, what nobody needs once it has ended in whatever way: goes in the same transaction. */
  forget?(record: R): readonly Statement[];
  /** Everything before the commit point. A restart that comes before it calls this again with the stored record. */
  run(task: Task<R>): Promise<Outcome>;
  /**
   * The result: of the step that is being committed, also where a restart cut the commit off and only the record and
   * the folder's manifest are left; of the step that is served, where the operation made none.
   */
  result(
    context: OperationContext,
    record: R,
    step: number,
    metrics: Manifest["metrics"],
  ): OperationResult;
}

/** A rollout that an operation takes for itself. */
export interface Claim {
  record: RolloutRecord;
  /** What the request gives it; where the rollout is open still, it ends with this reward. */
  reward: number | null;
}

/** An operation that is being run. */
export interface Task<R extends OperationRecord = OperationRecord> {
  context: OperationContext;
  record: R;
  emit: Emit;
  /** The operation's abort, or the server's end. */
  signal: AbortSignal;
}

export type Emit = (event: NewEvent) => void;

/**
 * A folder that is to be N+1, and is then published; nothing new, and what was learnt is published; or nothing at
 * all: the record has its result already.
 */
export type Outcome = Staged | "publish" | "nothing";

export interface Staged {
  staging: string;
  /** Names of its files. */
  files: readonly string[];
  metrics: Manifest["metrics"];
  seed: number;
  /** What it was trained for; none where it was not trained. */
  objective?: Manifest["objective"];
  /** A policy of this server that it learnt from. */
  teacher?: Manifest["teacher"];
  /** @default asked of the trainer when the policy is committed */
  probe?: Manifest["probe"];
  /** Where `batches` goes on after the step. @default where it is now */
  cursor?: unknown;
}

/** Runs a stage and reports how long it took. */
export async function timed<T>(emit: Emit, stage: string, run: () => Promise<T> | T): Promise<T> {
  await nextTurn();
  const begin = performance.now();
  const value = await run();
  emit({ type: "stage", stage, seconds: (performance.now() - begin) / 1000 });
  return value;
}

export function aborted(cause?: unknown): HoneError {
  return new HoneError("The operation was aborted. Nothing of it was kept.", {
    code: "aborted",
    cause,
  });
}
