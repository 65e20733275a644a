import {
  HoneError,
  mulberry32,
  shuffledIndices,
  type Trajectory,
  type TrajectoryGroup,
} from "@hone/core";
import { gather, type RolloutModel } from "@hone/client";
import type { ScoreHow } from "@hone/client/run";
import { askModel } from "../ask-model.ts";
import { mean, rankAccuracyOf, sampleVariance } from "../doctor/statistics.ts";
import { coinOf, hashOf, stable } from "./coin.ts";
import { completionText } from "@hone/ruler/rewards";
import type { ToJudge } from "./judge-prompt.ts";
import { distanceReward, rankReward } from "./judge-reward.ts";
import { judgeTrust, type JudgeTrust } from "./judge-trust.ts";
import {
  readOptions,
  type Gold,
  type SelfJudgeOptions,
  type Settings,
} from "./self-judge-options.ts";

/** What becomes of the judgements' groups in a run log: its records have their figures under this kind. */
const judgeKind = "judge";

/**
 * The policy as its own judge, as a task's `score`. Scenarios with gold are rewarded by gold, and the same policy
 * judges their rollouts in groups that are trained in the same step, by how well they agree with gold. Scenarios
 * without gold are scored by the policy's judgements. A judgement that cannot be read never counts for a rollout: with
 * none that can, its group has no rewards (`judge_failed`). Nor does a judge count that has not been seen to judge better
 * than guessing (`trustAbove`).
 */
export function selfJudge(
  options: SelfJudgeOptions = {},
): (groups: TrajectoryGroup[], how: ScoreHow) => Promise<TrajectoryGroup[]> {
  const settings = readOptions(options);
  const trust = judgeTrust({
    ...{ above: settings.trustAbove, window: settings.trustWindow },
    onChange: ({ trusted, reason }) =>
      console.warn(
        trusted
          ? `selfJudge(): judgements score rollouts without gold from now on: ${reason}.`
          : `selfJudge(): judgements do not score rollouts without gold any more (judge_untrusted): ${reason}.`,
      ),
  });
  return async (groups, how) => {
    if (how.mode === "eval")
      return await Promise.all(groups.map((one) => evaluated(one, settings)));
    const { goldFraction, seed } = settings;
    const cases: Case[] = groups.map((group) => ({
      ...{ group, toJudge: shown(group, seed) },
      hasGold: coinOf(seed, group.scenario) < goldFraction,
    }));
    const withGold = cases.filter(({ hasGold }) => hasGold);
    const judged = withGold
      .filter(({ toJudge }) => toJudge.candidates.length > 1)
      .slice(0, settings.judgeGroups);
    // As it was before this step: what is judged now is not known yet.
    const { trusted, reason } = trust;
    const without = cases.filter(
      ({ hasGold, toJudge }) => trusted && !hasGold && toJudge.candidates.length > 1,
    );
    const [golden, trained, asked] = await Promise.all([
      Promise.all(withGold.map(async (one) => await golded(one.group, settings))),
      judgements(judged, { ...settings, samples: settings.judgementsWithGold, mode: "train" }, how),
      judgements(
        without,
        { ...settings, samples: settings.judgementsWithoutGold, mode: "eval" },
        how,
      ),
    ]);
    const goldOf = new Map(withGold.map(({ group }, at) => [group, golden[at]!]));
    const askedOf = new Map(without.map(({ group }, at) => [group, asked[at]!]));
    const scored = cases.map(
      (one) =>
        goldOf.get(one.group) ??
        (trusted
          ? byJudgements(one, askedOf.get(one.group), settings)
          : untrusted(one.group, reason)),
    );
    const graded = judged.map((one, at) =>
      gradedJudgements(one, trained[at]!, goldOf.get(one.group)!, settings),
    );
    trust.measured(graded.flatMap(({ accuracy }) => accuracy ?? []));
    how.alsoTrain(
      counted(
        filtered(
          graded.map(({ group }) => group),
          settings,
        ),
      ),
    );
    const dropped = trusted ? 0 : cases.filter(({ hasGold }) => !hasGold).length;
    return withTrust(counted(filtered(scored, settings)), trust, dropped);
  };
}

interface Case {
  group: TrajectoryGroup;
  toJudge: ToJudge;
  hasGold: boolean;
}

/** The candidates in a seeded order: the place in the group must not say which rollout ended first. */
function shown({ scenario, trajectories }: TrajectoryGroup, seed: number): ToJudge {
  const order = shuffledIndices(
    trajectories.length,
    mulberry32(hashOf(`order ${seed} ${stable(scenario)}`)),
  );
  return { scenario, candidates: order.map((at) => trajectories[at]!) };
}

async function goldFor(trajectory: Trajectory, scenario: unknown, { gold }: Settings) {
  const given = await gold(trajectory, scenario);
  if (given === null) return null;
  const full: Gold = typeof given === "number" ? { reward: given } : given;
  if (Number.isFinite(full.reward)) return full;
  throw new HoneError(
    `selfJudge(): gold gave ${String(full.reward)}. Return a finite number, or null if it cannot be said.`,
    { code: "invalid_config", param: "gold" },
  );
}

async function golded(group: TrajectoryGroup, settings: Settings): Promise<TrajectoryGroup> {
  const trajectories = await Promise.all(
    group.trajectories.map(async (trajectory) => {
      const gold = await goldFor(trajectory, group.scenario, settings);
      if (gold === null) return { ...trajectory, reward: null };
      const { reward, accuracy, formatScore } = gold;
      const metrics = {
        ...{ ...trajectory.metrics, gold_reward: reward },
        ...(accuracy !== undefined && { accuracy }),
        ...(formatScore !== undefined && { format_score: formatScore }),
      };
      return { ...trajectory, reward, metrics };
    }),
  );
  return { ...group, trajectories };
}

/** Evaluations are by gold alone: a policy that judges better would otherwise seem to answer better. */
async function evaluated(group: TrajectoryGroup, settings: Settings): Promise<TrajectoryGroup> {
  const { trajectories, ...rest } = await golded(group, settings);
  return {
    ...rest,
    trajectories: trajectories.map((one) =>
      one.reward === null
        ? one
        : {
            ...one,
            metrics: { ...one.metrics, eval_accuracy: one.metrics["accuracy"] ?? one.reward },
          },
    ),
  };
}

/**
 * Has the policy judge each case: a group of judgements for each, in their order. In a run each has a seed of its own,
 * so that a batch which is judged again is judged alike.
 */
async function judgements(
  cases: readonly Case[],
  given: Settings & { samples: number; mode: "train" | "eval" },
  { policy, concurrency, seed, signal }: ScoreHow,
): Promise<TrajectoryGroup[]> {
  if (cases.length === 0) return [];
  const { samples, mode, prompt, temperature, answerTokens } = given;
  const rollout = async (
    model: RolloutModel,
    { at }: { at: number },
    { member, attempt }: { member: number; attempt: number },
  ) => {
    const { group, toJudge } = cases[at]!;
    const own = `${seed} ${mode} ${stable(group.scenario)} ${at} ${member} ${attempt}`;
    const seeded = typeof seed === "number" && { seed: hashOf(own) >>> 1 };
    const messages = prompt(toJudge);
    const request = { messages, temperature, max_tokens: answerTokens, ...seeded };
    await askModel(model, request, "The policy could not be asked for a judgement");
    return null;
  };
  const scenarios = cases.map(({ group }, at) => ({ judges: group.scenario, at }));
  // A judgement that fails is one fewer: it ends no run.
  const maxExceptions = cases.length * samples;
  return await gather(policy, rollout, scenarios, {
    ...{ groupSize: samples, mode, concurrency, maxExceptions, retries: 1, signal },
  });
}

/** Scores by candidate, in the order in which they were shown; null for a judgement that cannot be read. */
function scoresOf(judgement: Trajectory, { toJudge }: Case, settings: Settings) {
  const scores = settings.read(completionText(judgement), toJudge);
  const valid = scores?.length === toJudge.candidates.length && scores.every(Number.isFinite);
  return valid ? scores : null;
}

function unrewarded(group: TrajectoryGroup): TrajectoryGroup {
  return { ...group, trajectories: group.trajectories.map((one) => ({ ...one, reward: null })) };
}

function untrusted(group: TrajectoryGroup, reason: string): TrajectoryGroup {
  const line = `selfJudge: no rewards (judge_untrusted): ${reason}.`;
  return { ...unrewarded(group), logs: [...group.logs, line] };
}

function byJudgements(
  one: Case,
  judged: TrajectoryGroup | undefined,
  settings: Settings,
): TrajectoryGroup {
  const { group, toJudge } = one;
  if (!judged) return unrewarded(group);
  const all = judged.trajectories.map((judgement) => scoresOf(judgement, one, settings));
  const valid = all.filter((scores) => scores !== null);
  const scores = new Map(
    toJudge.candidates.map((candidate, at) => [
      candidate,
      valid.length > 0 ? mean(valid.map((given) => given[at] as number)) : null,
    ]),
  );
  const asked = judged.trajectories.length + judged.exceptions.length;
  return {
    ...group,
    metadata: { ...group.metadata, ...(valid.length === 0 && { failed: "judge_failed" }) },
    logs: valid.length === 0 ? [...group.logs, unreadable(judged, asked)] : group.logs,
    trajectories: group.trajectories.map((trajectory) => ({
      ...trajectory,
      reward: scores.get(trajectory) ?? null,
      metrics: { ...trajectory.metrics, judge_success: asked > 0 ? valid.length / asked : 0 },
    })),
  };
}

function unreadable({ exceptions }: TrajectoryGroup, asked: number): string {
  const failed = exceptions.at(-1);
  const why = failed ? ` ${exceptions.length} failed, the last one: ${failed.message}` : "";
  return `selfJudge: no rewards (judge_failed): of ${asked} judgements none could be read.${why}`;
}

/**
 * The judgements of a scenario with gold, rewarded by how well they agree with it; and the accuracy of those that can be
 * read, null where gold tells no rollouts apart.
 */
function gradedJudgements(
  one: Case,
  judged: TrajectoryGroup,
  golden: TrajectoryGroup,
  settings: Settings,
): { group: TrajectoryGroup; accuracy: number | null } {
  const { parity, varianceFloor, judgeWeight } = settings;
  const goldOf = new Map(
    one.group.trajectories.map((t, at) => [t, golden.trajectories[at]?.reward]),
  );
  const gold = one.toJudge.candidates.map((candidate) => goldOf.get(candidate) ?? null);
  const known = gold.flatMap((value, at) => (value === null ? [] : [at]));
  const truth = known.map((at) => gold[at] as number);
  const accuracies: number[] = [];
  const trajectories = judged.trajectories.map((judgement) => {
    const scores = scoresOf(judgement, one, settings);
    const compared = scores && known.map((at) => scores[at] as number);
    const accuracy = compared && rankAccuracyOf(compared, truth);
    if (accuracy !== null) accuracies.push(accuracy);
    const reward = parity
      ? distanceReward(compared, truth)
      : rankReward(compared, truth, varianceFloor);
    const ids = judgement.turns?.flatMap(({ id }) => id ?? []) ?? [];
    return {
      ...judgement,
      reward,
      metrics: {
        ...judgement.metrics,
        judge_success: scores === null ? 0 : 1,
        ...(reward !== null && { reward_for_judger: reward }),
      },
      ...(judgeWeight !== 1 && {
        completions: Object.fromEntries(ids.map((id) => [id, { weight: judgeWeight }])),
      }),
    };
  });
  return {
    group: { ...judged, trajectories, metadata: { ...judged.metadata, kind: judgeKind } },
    accuracy: accuracies.length > 0 ? mean(accuracies) : null,
  };
}

/** Groups whose rewards differ too little carry the mark by which `train` leaves them out, and `fill` replaces them. */
function filtered(groups: readonly TrajectoryGroup[], { stdThreshold }: Settings) {
  return groups.map((group) => {
    const rewards = group.trajectories.flatMap(({ reward }) => reward ?? []);
    if (rewards.length < 2 || Math.sqrt(sampleVariance(rewards)) > stdThreshold) return group;
    return { ...group, metadata: { ...group.metadata, failed: "zero_variance" } };
  });
}

/** How far the judge is trusted, in the metrics of each rollout: their mean is the figure. */
function withTrust(
  groups: readonly TrajectoryGroup[],
  { accuracy }: JudgeTrust,
  dropped: number,
): TrajectoryGroup[] {
  return withMetrics(groups, {
    judge_untrusted: dropped,
    ...(accuracy && { judge_accuracy: accuracy.value }),
  });
}

/** How many groups of the step were left out, in the metrics of each rollout: their mean is the count. */
function counted(groups: readonly TrajectoryGroup[]): TrajectoryGroup[] {
  const count = groups.filter(({ metadata }) => metadata["failed"] === "zero_variance").length;
  return withMetrics(groups, { filtered_count: count });
}

function withMetrics(
  groups: readonly TrajectoryGroup[],
  metrics: Record<string, number>,
): TrajectoryGroup[] {
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({
      ...one,
      metrics: { ...one.metrics, ...metrics },
    })),
  }));
}
