import type { OperationEvent, Trajectory, TrajectoryGroup, TrainResult } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { bootstrapInterval, type Interval, mean, standardDeviation } from "../statistics.ts";
import type { StepFigures } from "../stopping/step-figures.ts";
import { lastAnswer } from "../stopping/texts.ts";
import { whyGroupNotCompared } from "../training/compared.ts";
import type { CurriculumShares } from "../training/curriculum.ts";
import type { FillCounts } from "../training/fill.ts";
import type { OverlapCounts } from "../training/play-ahead.ts";

/** What one step of a run was like: a line of metrics.jsonl. */
export interface StepRecord {
  type: "step";
  /** Steps done with this one, from 1. */
  step: number;
  policy: string;
  trained: boolean;
  /** Why groups did not train: reason → groups. */
  reasons: Record<string, number>;
  rollouts: number;
  failed: number;
  /** Of rollouts with a reward; the 95% interval of the mean is over groups. Null without any. */
  reward: ({ mean: number; std: number | null } & Interval) | null;
  /** Means of the rollouts' own metrics. */
  metrics: Record<string, number>;
  /** Groups of other kinds that trained in the same step, by kind. Absent: there were none. */
  kinds?: Record<string, KindRecord> | undefined;
  /** Groups that can be compared because their rewards differ, of all. */
  variance: { groups: number; of: number };
  /** How the batch was filled. Absent if it was not, and in older records. */
  fill?: FillCounts | undefined;
  /** How playing and training went beside one another. Absent if they did not, and in older records. */
  overlap?: OverlapCounts | undefined;
  /** What the curriculum drew. Absent without one. */
  curriculum?: CurriculumShares | undefined;
  /** What a run's alarms are read off. Absent in a loop of one's own, and in older records. */
  watch?: StepFigures | undefined;
  /** The most frequent last answers, long ones cut, and how many rollouts gave each. */
  answers: { distinct: number; top: { answer: string; count: number }[] };
  /** Sampled tokens of a rollout. */
  tokens: { mean: number; min: number; max: number } | null;
  /** Turns that could not extend an earlier one, of all rollouts; `share` is what they cost. Absent: none. */
  splits?: Splits | undefined;
  /** Sampled tokens a second while the rollouts ran. */
  tokensPerSecond: number;
  /** Wall time by stage: `gather`, `train` as a whole, and the stages that the server tells. */
  seconds: Record<string, number>;
  /** What the trainer measured, under its own names: loss, entropy, sampling/… */
  training: Record<string, number | null>;
  /** What begins to hold with this step. */
  warnings: { code: string; message: string }[];
  /** Kinds of warnings that were told at an earlier step and hold still: a code, or the server's words
   * with # for numbers. Absent: none. */
  lasting?: string[] | undefined;
}

/** What a step's groups of another kind were like; the step's own figures leave them out. */
type KindRecord = Pick<StepRecord, "rollouts" | "reward" | "metrics" | "variance">;

/** `share`: of all tokens that the step would have without them. */
type Splits = NonNullable<Trajectory["usage"]["splits"]> & { share: number };

const shownAnswers = 5;
const answerLength = 80;

export function stepRecord(given: {
  step: number;
  groups: readonly TrajectoryGroup[];
  fill: FillCounts | null;
  overlap: OverlapCounts | null;
  also?: readonly TrajectoryGroup[];
  curriculum: CurriculumShares | null;
  watch?: StepFigures | null;
  result: TrainResult;
  gatherSeconds: number;
  trainSeconds: number;
  stages: ReadonlyMap<string, number>;
}): StepRecord {
  const { groups, fill, overlap, also = [], curriculum, watch, result } = given;
  const trajectories = groups.flatMap((group) => group.trajectories);
  const sampled = trajectories.map(({ usage }) => usage.completionTokens);
  return {
    type: "step",
    step: given.step,
    policy: result.policy,
    trained: result.trained,
    reasons: { ...result.reasons },
    failed: groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0),
    ...kindRecord(groups),
    ...(also.length > 0 && { kinds: kindsOf(also) }),
    ...(fill && { fill }),
    ...(overlap && { overlap }),
    ...(curriculum && { curriculum }),
    ...(watch && { watch }),
    answers: answersOf(trajectories),
    tokens:
      sampled.length === 0
        ? null
        : { mean: mean(sampled), min: Math.min(...sampled), max: Math.max(...sampled) },
    ...splitsOf(trajectories),
    tokensPerSecond: sampled.reduce((sum, count) => sum + count, 0) / given.gatherSeconds,
    seconds: {
      gather: given.gatherSeconds,
      train: given.trainSeconds,
      ...Object.fromEntries(given.stages),
    },
    training: { ...result.metrics },
    warnings: result.warnings.map((message) => ({ code: "server", message })),
  };
}

function kindRecord(groups: readonly TrajectoryGroup[]): KindRecord {
  const trajectories = groups.flatMap((group) => group.trajectories);
  return {
    rollouts: trajectories.length,
    reward: rewardOf(groups),
    metrics: meansOf(trajectories),
    variance: {
      groups: groups.filter((group) => whyGroupNotCompared(group) === null).length,
      of: groups.length,
    },
  };
}

function kindsOf(also: readonly TrajectoryGroup[]): Record<string, KindRecord> {
  const kindOf = ({ metadata: { kind } }: TrajectoryGroup) =>
    typeof kind === "string" ? kind : "other";
  return Object.fromEntries(
    [...new Set(also.map(kindOf))].map((kind) => [
      kind,
      kindRecord(also.filter((group) => kindOf(group) === kind)),
    ]),
  );
}

/** Adds up the seconds of the stages that the server tells of. */
export function addStage(stages: Map<string, number>, event: OperationEvent): void {
  if (event.type !== "stage") return;
  stages.set(event.stage, (stages.get(event.stage) ?? 0) + event.seconds);
}

function rewardsOf({ trajectories }: TrajectoryGroup): number[] {
  return trajectories.flatMap(({ reward }) => (reward === null ? [] : [reward]));
}

function rewardOf(groups: readonly TrajectoryGroup[]): StepRecord["reward"] {
  const byGroup = groups.map(rewardsOf).filter((rewards) => rewards.length > 0);
  const all = byGroup.flat();
  if (all.length === 0) return null;
  const centres = byGroup.map(mean);
  return {
    mean: mean(all),
    std: standardDeviation(all),
    // Rollouts of a group share their scenario: groups are what is independent.
    ...bootstrapInterval(centres, 1000, mulberry32(0)),
  };
}

function meansOf(trajectories: readonly Trajectory[]): Record<string, number> {
  const values = new Map<string, number[]>();
  for (const { metrics } of trajectories) {
    for (const [name, value] of Object.entries(metrics)) {
      values.set(name, [...(values.get(name) ?? []), value]);
    }
  }
  return Object.fromEntries([...values].map(([name, all]) => [name, mean(all)]));
}

function splitsOf(trajectories: readonly Trajectory[]): Pick<StepRecord, "splits"> {
  const reasons: Splits["reasons"] = {};
  let [tokensAgain, tokens] = [0, 0];
  for (const { usage } of trajectories) {
    const { splits, sequenceTokens, promptTokens, completionTokens } = usage;
    tokensAgain += splits?.tokensAgain ?? 0;
    tokens += sequenceTokens ?? promptTokens + completionTokens;
    for (const [reason, count] of Object.entries(splits?.reasons ?? {})) {
      const known = reason as keyof typeof reasons;
      reasons[known] = (reasons[known] ?? 0) + count;
    }
  }
  if (Object.keys(reasons).length === 0) return {};
  return { splits: { reasons, tokensAgain, share: tokensAgain / (tokens - tokensAgain) } };
}

function answersOf(trajectories: readonly Trajectory[]): StepRecord["answers"] {
  const counts = new Map<string, number>();
  for (const trajectory of trajectories) {
    // By the whole text: long answers often begin alike.
    const answer = lastAnswer(trajectory);
    if (answer === null) continue;
    counts.set(answer, (counts.get(answer) ?? 0) + 1);
  }
  const top = [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, shownAnswers)
    .map(([answer, count]) => ({ answer: cut(answer), count }));
  return { distinct: counts.size, top };
}

function cut(answer: string): string {
  return answer.length <= answerLength ? answer : `${answer.slice(0, answerLength - 1)}…`;
}
