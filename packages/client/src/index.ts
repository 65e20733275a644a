export { Hone } from "./hone.ts";
export type { ModelOptions } from "./hone.ts";
export type { HoneOptions } from "./connection-settings.ts";
export type { Fetch } from "@hone/transport";
export { Model, Policy } from "./model.ts";
export type { TrainOptions } from "./model.ts";
export type { TrainHandle } from "./train-handle.ts";
export type { Batch, BatchCursor, BatchesOptions } from "./batches.ts";
export type { Connection, RolloutModel } from "./rollout-model.ts";
export type { Rollout } from "./rollout-run.ts";
export type { RolloutResult } from "./rollout-outcome.ts";
export { gather } from "./gather.ts";
export { GatherError } from "./gather-error.ts";
export type { GatherEvent, GatherOptions } from "./gather.ts";
export { readGroups, writeGroups } from "./group-files.ts";
export { shuffleRewards } from "./control.ts";
export { compare, evaluationTable } from "./compare.ts";
export type {
  CompareOptions,
  Comparison,
  EvaluationOptions,
  EvaluationRow,
  Evaluations,
} from "./compare.ts";
export { ComparisonModel } from "./comparison-model.ts";
export type { ComparisonModelOptions } from "./comparison-model.ts";
export { openRunLog } from "./run-log/run-log.ts";
export type { RunLog, RunLogOptions, StepLog } from "./run-log/run-log.ts";
export type { StepRecord } from "./run-log/step-record.ts";
export type { EvaluationRecord } from "./run-log/evaluation-record.ts";
export { sparkline } from "./run-log/curves.ts";
export { splitScenarios } from "./scenarios.ts";
export type { SplitOptions } from "./scenarios.ts";
export { HoneError } from "@hone/core";
export type {
  ErrorCode,
  ModelInfo,
  OperationEvent,
  RolloutException,
  RolloutMode,
  TrainConfig,
  TrainResult,
  Trajectory,
  TrajectoryGroup,
} from "@hone/core";
