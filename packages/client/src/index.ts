export { Hone } from "./hone.ts";
export type { ModelOptions } from "./hone.ts";
export type { HoneOptions } from "./connection-settings.ts";
export type { Fetch } from "@hone/transport";
export { Model } from "./model.ts";
export { Policy } from "./rollouts/policy.ts";
export type { TrainOptions } from "./model.ts";
export type { Schedule } from "./training/schedule.ts";
export type { TrainHandle } from "./training/train-handle.ts";
export type { Batch, BatchCursor, BatchesOptions } from "./training/batch.ts";
export type { CurriculumOptions, CurriculumShares } from "./training/curriculum.ts";
export { fillBatch } from "./training/fill.ts";
export type { FillCounts, FillOptions } from "./training/fill.ts";
export { playAhead } from "./training/play-ahead.ts";
export type { OverlapCounts, Play, PlayAheadOptions, PlayedBatch } from "./training/play-ahead.ts";
export type { AnthropicConnection, Connection, RolloutModel } from "./rollouts/rollout-model.ts";
export type { Rollout } from "./rollouts/rollout-run.ts";
export type { RolloutResult } from "./rollouts/rollout-outcome.ts";
export { runHarness } from "./harness/harness.ts";
export type { HarnessOptions, HarnessRun } from "./harness/harness.ts";
export { gather } from "./rollouts/gather.ts";
export { GatherError } from "./rollouts/gather-error.ts";
export type { GatherEvent, GatherOptions } from "./rollouts/gather.ts";
export type { TeacherLogprobs, TeacherLogprobsOptions } from "./distillation/teacher-logprobs.ts";
export { readGroups, writeGroups } from "./training/group-files.ts";
export { shuffleRewards } from "./training/control.ts";
export { compare, evaluationTable } from "./evaluation/compare.ts";
export type {
  CompareOptions,
  Comparison,
  EvaluationOptions,
  EvaluationRow,
  Evaluations,
} from "./evaluation/compare.ts";
export { bestOfN } from "./supervised/best-of-n.ts";
export type { BestOfNOptions } from "./supervised/best-of-n.ts";
export type { DpoExample, DpoExamples, DpoOptions, TrajectoryPair } from "./supervised/dpo.ts";
export type { BradleyTerryOptions } from "./supervised/bradley-terry.ts";
export type { SupervisedEvent, Validation } from "./supervised/run-options.ts";
export type { SftExample, SftExamples, SftOptions } from "./supervised/sft.ts";
export type { SupervisedRun } from "./supervised/supervised-run.ts";
export type {
  ForwardBackwardOptions,
  ForwardOptions,
  OptimStepOptions,
} from "./primitives/primitives.ts";
export type { Sample, SampleOptions, Samples } from "./primitives/sample.ts";
export { ComparisonModel } from "./rollouts/comparison-model.ts";
export type { ComparisonModelOptions } from "./rollouts/comparison-model.ts";
export { openRunLog } from "./run-log/run-log.ts";
export type { RunLog, RunLogOptions, StepLog } from "./run-log/run-log.ts";
export type { StepRecord } from "./run-log/step-record.ts";
export type { EvaluationRecord } from "./run-log/evaluation-record.ts";
export { sparkline } from "./run-log/curves.ts";
export { splitScenarios } from "./training/scenarios.ts";
export type { SplitOptions } from "./training/scenarios.ts";
export { HoneError } from "@hone/core";
export type {
  Datum,
  ErrorCode,
  ForwardResult,
  ModelInfo,
  OperationEvent,
  OptimStepResult,
  PolicyInfo,
  RolloutException,
  RolloutMode,
  TokenLoss,
  TrainConfig,
  TrainResult,
  Trajectory,
  TrajectoryGroup,
} from "@hone/core";
