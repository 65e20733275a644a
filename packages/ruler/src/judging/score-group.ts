import { HoneError, isAskedAgain, printableLine } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { debugText } from "./debug-text.ts";
import type { Judge } from "../judge/judge-target.ts";
import { judgeMembers } from "./judging.ts";
import type { JudgedMembers, Judgement, MemberScore } from "./judgement.ts";
import { judgeOptionNames, resolveSettings } from "./settings.ts";
import type { JudgeOptions } from "./settings.ts";

export interface ScoreGroupOptions extends JudgeOptions {
  /**
   * If the judge gives no scores, the group is dropped: its rewards are null, `train` counts it under
   * `judge_failed`, and there is a warning. With `false` a JudgeError is thrown instead. A wrong option, a missing
   * key and an abort always throw.
   * @default true
   */
  swallowErrors?: boolean | undefined;
}

/** A group with the judge's scores as rewards, and how they came about. */
export interface ScoredGroup extends TrajectoryGroup {
  judgement: Judgement;
}

/**
 * Scores the trajectories of a group against one another, with one request to the judge for each pass and with none
 * if all trajectories are the same. Gives a new group that keeps everything of the old one.
 */
export async function rulerScoreGroup(
  group: TrajectoryGroup,
  judge: Judge,
  options: ScoreGroupOptions = {},
): Promise<ScoredGroup> {
  requireArguments(group, judge);
  const { swallowErrors = true, ...judgeOptions } = options;
  const settings = await resolveSettings("rulerScoreGroup()", judge, judgeOptions, [
    ...judgeOptionNames,
    "swallowErrors",
  ]);
  const again = isAskedAgain(group);
  const how = again ? { ...settings, answers: null, reversed: true } : settings;
  const judged = await judgeMembers(group.id, group.trajectories, how);
  const { judgement } = judged;
  settings.debug?.(debugText(group, judged));
  if (judgement.status === "failed") {
    if (!swallowErrors && judgement.error) throw judgement.error;
    console.warn(
      printableLine(
        `RULER: group ${group.id} is dropped (judge_failed): ${judgement.error?.message}`,
      ),
    );
  }
  return scoredGroup(group, judged);
}

/** Callers without types pass what a variable that was never set holds. */
function requireArguments(group: unknown, judge: unknown): void {
  const isGroup = typeof group === "object" && group !== null && "trajectories" in group;
  if (!isGroup || !Array.isArray(group.trajectories)) {
    throw new HoneError(
      "rulerScoreGroup(): the first argument is no group. Give one of gather's.",
      {
        code: "invalid_config",
        param: "group",
      },
    );
  }
  if (typeof judge === "string" || (typeof judge === "object" && judge !== null)) return;
  throw new HoneError(
    `rulerScoreGroup(): the judge is ${judge === null ? "null" : `of type ${typeof judge}`}. Give "provider/model", or {baseURL, model}.`,
    { code: "invalid_config", param: "judge" },
  );
}

function scoredGroup(group: TrajectoryGroup, { scores, judgement }: JudgedMembers): ScoredGroup {
  // What an earlier judging said of it no longer holds.
  const { failed, ...metadata } = group.metadata;
  if (failed !== undefined && failed !== "judge_failed" && failed !== "zero_variance") {
    metadata["failed"] = failed;
  }
  // `train` counts the group under this reason.
  if (judgement.status === "failed") metadata["failed"] = "judge_failed";
  if (judgement.status === "zero_variance") metadata["failed"] = "zero_variance";
  return {
    ...group,
    trajectories: group.trajectories.map((trajectory, index) =>
      scoredTrajectory(trajectory, scores[index] ?? null),
    ),
    metadata: { ...metadata, ruler: summaryOf(judgement) },
    metrics: { ...group.metrics, ...groupMetrics(judgement) },
    logs: [
      ...group.logs,
      ...judgement.cuts.map((cut) => `RULER left out of the prompt: ${cut}`),
      ...(judgement.error ? [`RULER: ${judgement.error.message}`] : []),
    ],
    judgement,
  };
}

function scoredTrajectory(trajectory: Trajectory, judged: MemberScore | null): Trajectory {
  // A trajectory that is judged again keeps the reward that it had before the first judging, or none.
  const judgedBefore = trajectory.metrics["ruler_score"] !== undefined;
  const before =
    trajectory.metrics["independent_reward"] ?? (judgedBefore ? null : trajectory.reward);
  const { ruler_score: _score, ruler_score_std: _spread, ...metrics } = trajectory.metrics;
  if (before !== null) metrics["independent_reward"] = before;
  if (!judged) return { ...trajectory, reward: null, metrics };
  metrics["ruler_score"] = judged.score;
  if (judged.passes.length > 1) metrics["ruler_score_std"] = deviation(judged.passes, judged.score);
  return {
    ...trajectory,
    reward: judged.score,
    metrics,
    logs: [...trajectory.logs, `RULER explanation: ${judged.explanation}`],
  };
}

function deviation(values: readonly number[], mean: number): number {
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

function summaryOf(judgement: Judgement): Record<string, unknown> {
  const { status, judge, error } = judgement;
  const failure = error && "failure" in error ? error.failure : null;
  return { status, judge, ...(failure === null ? {} : { failure }) };
}

function groupMetrics(judgement: Judgement): Record<string, number> {
  const metrics: Record<string, number> = {
    "ruler/calls": judgement.calls,
    "ruler/cached_answers": judgement.cachedAnswers,
    "ruler/attempts": judgement.attempts,
    "ruler/repairs": judgement.repairs,
    "ruler/failed": judgement.status === "failed" ? 1 : 0,
    "ruler/failed_passes": judgement.failedPasses,
    "ruler/prompt_tokens": judgement.promptTokens,
    "ruler/cached_tokens": judgement.cachedTokens,
    "ruler/completion_tokens": judgement.completionTokens,
  };
  if (judgement.tournament) metrics["ruler/tournament_matches"] = judgement.tournament.matches;
  // What is not known has no metric.
  if (judgement.costUsd !== null) metrics["ruler/cost_usd"] = judgement.costUsd;
  if (judgement.positionBias !== null) metrics["ruler/position_bias"] = judgement.positionBias;
  if (judgement.passSpread !== null) metrics["ruler/pass_spread"] = judgement.passSpread;
  return metrics;
}
