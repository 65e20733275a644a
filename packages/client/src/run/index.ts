export { defineTask } from "./task.ts";
export type {
  HeldOutJudge,
  PreferBaseline,
  RolloutHow,
  ScoreHow,
  Task,
  TaskCurves,
  TaskSettings,
} from "./task.ts";
export { trainRun } from "./train-run.ts";
export { taskRollout } from "./task-rollout.ts";
/** @internal For Hone's own packages. */
export { makeFolder } from "@hone/transport/node";
export { loadTask, readTypeScript } from "./task-file.ts";
export type { LoadedTask } from "./task-file.ts";
export type { RunEvent } from "./run-event.ts";
export type { OverlapOptions, RunOptions, RunSettings } from "./run-options.ts";
export { otherModel } from "./other-models.ts";
export type { OtherModel, OtherModelSettings } from "./other-models.ts";
export type { MetricChange, RunSummary } from "./summary.ts";
export { leastHeldOut } from "./verdict.ts";
export type { Outcome } from "./verdict.ts";
export { summaryText } from "./summary-text.ts";
export { createReporter } from "./reporter.ts";
export { probeTask } from "./probe.ts";
export type { ProbeEvent, ProbeOptions, ProbeReport } from "./probe.ts";
export { pausedRun, setAside } from "./paused-run.ts";
export type { PausedRun, SetAside } from "./paused-run.ts";
export type { Stopped } from "./watch-log.ts";
export type { WatchSummary } from "./run-watch.ts";
export type { Advice, StopAdvice } from "../stopping/advise.ts";
export type { Alarm } from "../stopping/alarms.ts";
export type { Phase, PhaseName } from "../stopping/phases.ts";
export type {
  AlarmAction,
  AlarmCode,
  Budget,
  Goals,
  StopReason,
} from "../stopping/stop-options.ts";
