import {
  HoneError,
  mulberry32,
  refuseUnknownOptions,
  requireNumber,
  shuffledIndices,
  type ChatMessage,
  type Trajectory,
  type TrajectoryGroup,
} from "@hone/core";
import { gather, type RolloutModel } from "@hone/client";
import type { ScoreHow } from "@hone/client/run";
import { mean, sampleVariance } from "../doctor/statistics.ts";
import { coinOf, hashOf, stable } from "./coin.ts";
import { readScores, readScoresAsTrinity, type ReadScores } from "./judge-answer.ts";
import { answerOf, judgePrompt, type ToJudge } from "./judge-prompt.ts";
import { distanceReward, rankReward } from "./judge-reward.ts";

/** What a rollout is worth in truth. `accuracy` and `formatScore` are metrics only. */
export interface Gold {
  reward: number;
  accuracy?: number | undefined;
  formatScore?: number | undefined;
}

export interface SelfJudgeOptions {
  /**
   * What a rollout is worth in truth; null if it cannot be said. It is asked for scenarios that have gold, and in
   * evaluations for all. @default the rollout's own reward
   */
  gold?:
    | ((
        trajectory: Trajectory,
        scenario: unknown,
      ) => number | Gold | null | Promise<number | Gold | null>)
    | undefined;
  /** The share of the scenarios that have gold: a coin for each, the same in every epoch. @default 0.2 */
  goldFraction?: number | undefined;
  /** Seed of the coins, and of the orders in which candidates are shown. @default 0 */
  seed?: number | undefined;
  /** Judgements of a scenario with gold, which are trained as a group of their own. @default 8 */
  judgementsWithGold?: number | undefined;
  /** Judgements of a scenario without gold, which score it and are not trained. @default 1 */
  judgementsWithoutGold?: number | undefined;
  /** Scenarios of a step whose judgements are trained at most. @default all that have gold */
  judgeGroups?: number | undefined;
  /** How much each token of a judgement weighs in the step, beside 1 of the rollouts. @default 1 */
  judgeWeight?: number | undefined;
  /** Judgements whose scores differ by less (standard deviation) earn nothing. @default 0.05 */
  varianceFloor?: number | undefined;
  /** Groups whose rewards differ by no more (standard deviation) are left out and counted. @default 1e-4 */
  stdThreshold?: number | undefined;
  /** Trinity-RFT's rules: its distance to scaled gold as the judge's reward, its way to read an answer. @default false */
  parity?: boolean | undefined;
  /** The judging prompt. @default task, candidates' last answers, and a list to end with */
  prompt?: ((group: ToJudge) => ChatMessage[]) | undefined;
  /** Reads a judgement. @default the last list of as many numbers from 0 to 1 as there are candidates */
  read?: ((text: string, group: ToJudge) => readonly number[] | null) | undefined;
  /** Of the judgements. @default 1 */
  temperature?: number | undefined;
  /** Tokens that a judgement may have. @default 512 */
  answerTokens?: number | undefined;
}

const optionNames = [
  ...["gold", "goldFraction", "seed", "judgementsWithGold", "judgementsWithoutGold"],
  ...["judgeGroups", "judgeWeight", "varianceFloor", "stdThreshold", "parity", "prompt", "read"],
  ...["temperature", "answerTokens"],
];

/** What becomes of the judgements' groups in a run log: its records have their figures under this kind. */
const judgeKind = "judge";

/**
 * The policy as its own judge, as a task's `score`. Scenarios with gold are rewarded by gold, and the same policy
 * judges their rollouts in groups that are trained in the same step, by how well they agree with gold. Scenarios
 * without gold are scored by the policy's judgements. A judgement that cannot be read never counts for a rollout: with
 * none that can, its group has no rewards (`judge_failed`).
 */
export function selfJudge(
  options: SelfJudgeOptions = {},
): (groups: TrajectoryGroup[], how: ScoreHow) => Promise<TrajectoryGroup[]> {
  const settings = readOptions(options);
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
    const without = cases.filter(
      ({ hasGold, toJudge }) => !hasGold && toJudge.candidates.length > 1,
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
      (one) => goldOf.get(one.group) ?? byJudgements(one, askedOf.get(one.group), settings),
    );
    const graded = judged.map((one, at) =>
      gradedJudgements(one, trained[at]!, goldOf.get(one.group)!, settings),
    );
    how.alsoTrain(counted(filtered(graded, settings)));
    return counted(filtered(scored, settings));
  };
}

type Settings = { [Name in keyof SelfJudgeOptions]-?: Exclude<SelfJudgeOptions[Name], undefined> };

interface Case {
  group: TrajectoryGroup;
  toJudge: ToJudge;
  hasGold: boolean;
}

function readOptions(options: SelfJudgeOptions): Settings {
  refuseUnknownOptions("selfJudge()", options, optionNames);
  const number = (
    name: keyof SelfJudgeOptions,
    fallback: number,
    range: Parameters<typeof requireNumber>[2],
  ) => requireNumber(name, options[name] ?? fallback, range);
  const { parity = false, prompt = judgePrompt } = options;
  const byRule: ReadScores = parity ? readScoresAsTrinity : readScores;
  const { gold = ({ reward }) => reward } = options;
  const { read = (text: string, { candidates }: ToJudge) => byRule(text, candidates.length) } =
    options;
  return {
    ...{ gold, parity, prompt, read },
    judgeGroups:
      options.judgeGroups === undefined
        ? Infinity
        : number("judgeGroups", 0, { least: 0, whole: true }),
    goldFraction: number("goldFraction", 0.2, { least: 0, most: 1 }),
    seed: number("seed", 0, { least: 0, whole: true }),
    judgementsWithGold: number("judgementsWithGold", 8, { least: 2, whole: true }),
    judgementsWithoutGold: number("judgementsWithoutGold", 1, { least: 1, whole: true }),
    judgeWeight: number("judgeWeight", 1, { above: 0, most: 1000 }),
    varianceFloor: number("varianceFloor", 0.05, { least: 0 }),
    stdThreshold: number("stdThreshold", 1e-4, { least: 0 }),
    temperature: number("temperature", 1, { above: 0 }),
    answerTokens: number("answerTokens", 512, { least: 1, whole: true }),
  };
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

/** Has the policy judge each case: a group of judgements for each, in their order. */
async function judgements(
  cases: readonly Case[],
  given: Settings & { samples: number; mode: "train" | "eval" },
  { policy, concurrency, signal }: ScoreHow,
): Promise<TrajectoryGroup[]> {
  if (cases.length === 0) return [];
  const { samples, mode, prompt, temperature, answerTokens } = given;
  const rollout = async (model: RolloutModel, { at }: { at: number }) => {
    const messages = prompt(cases[at]!.toJudge);
    await ask(model, { messages, temperature, max_tokens: answerTokens });
    return null;
  };
  const scenarios = cases.map(({ group }, at) => ({ judges: group.scenario, at }));
  // A judgement that fails is one fewer: it ends no run.
  const maxExceptions = cases.length * samples;
  return await gather(policy, rollout, scenarios, {
    ...{ groupSize: samples, mode, concurrency, maxExceptions, retries: 1, signal },
  });
}

async function ask(model: RolloutModel, request: object): Promise<void> {
  const { baseURL, apiKey, model: name, fetch } = model.connection();
  const response = await fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
    body: JSON.stringify({ model: name, ...request }),
    signal: model.signal,
  });
  const body = await response.text();
  if (response.ok) return;
  throw new HoneError(`The policy could not be asked for a judgement: ${body.slice(0, 300)}`, {
    ...{ code: "invalid_response", status: response.status },
  });
}

/** Scores by candidate, in the order in which they were shown; null for a judgement that cannot be read. */
function scoresOf(judgement: Trajectory, { toJudge }: Case, settings: Settings) {
  const scores = settings.read(answerOf(judgement), toJudge);
  const valid = scores?.length === toJudge.candidates.length && scores.every(Number.isFinite);
  return valid ? scores : null;
}

function byJudgements(
  one: Case,
  judged: TrajectoryGroup | undefined,
  settings: Settings,
): TrajectoryGroup {
  const { group, toJudge } = one;
  if (!judged) {
    const trajectories = group.trajectories.map((each) => ({ ...each, reward: null }));
    return { ...group, trajectories };
  }
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
    trajectories: group.trajectories.map((trajectory) => ({
      ...trajectory,
      reward: scores.get(trajectory) ?? null,
      metrics: { ...trajectory.metrics, judge_success: asked > 0 ? valid.length / asked : 0 },
    })),
  };
}

/** The judgements of a scenario with gold, rewarded by how well they agree with it. */
function gradedJudgements(
  one: Case,
  judged: TrajectoryGroup,
  golden: TrajectoryGroup,
  settings: Settings,
): TrajectoryGroup {
  const { parity, varianceFloor, judgeWeight } = settings;
  const goldOf = new Map(
    one.group.trajectories.map((t, at) => [t, golden.trajectories[at]?.reward]),
  );
  const gold = one.toJudge.candidates.map((candidate) => goldOf.get(candidate) ?? null);
  const known = gold.flatMap((value, at) => (value === null ? [] : [at]));
  const truth = known.map((at) => gold[at] as number);
  const trajectories = judged.trajectories.map((judgement) => {
    const scores = scoresOf(judgement, one, settings);
    const compared = scores && known.map((at) => scores[at] as number);
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
  return { ...judged, trajectories, metadata: { ...judged.metadata, kind: judgeKind } };
}

/** Groups whose rewards differ too little carry the mark by which `train` leaves them out, and `fill` replaces them. */
function filtered(groups: readonly TrajectoryGroup[], { stdThreshold }: Settings) {
  return groups.map((group) => {
    const rewards = group.trajectories.flatMap(({ reward }) => reward ?? []);
    if (rewards.length < 2 || Math.sqrt(sampleVariance(rewards)) > stdThreshold) return group;
    return { ...group, metadata: { ...group.metadata, failed: "zero_variance" } };
  });
}

/** How many groups of the step were left out, in the metrics of each rollout: their mean is the count. */
function counted(groups: readonly TrajectoryGroup[]): TrajectoryGroup[] {
  const count = groups.filter(({ metadata }) => metadata["failed"] === "zero_variance").length;
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({
      ...one,
      metrics: { ...one.metrics, filtered_count: count },
    })),
  }));
}
