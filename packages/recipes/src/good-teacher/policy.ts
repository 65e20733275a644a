import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { compare, readGroups, type Hone, type TrainConfig } from "@hone/client";
import { defineTask, trainRun, type RunEvent, type ScoreHow } from "@hone/client/run";
import { HoneError, type ChatMessage, type TrajectoryGroup } from "@hone/core";
import { z } from "zod";
import { askModel } from "../ask-model.ts";
import type { ExaminedJudge } from "../doctor/judge.ts";
import type { JudgeNames } from "../doctor/judges.ts";
import type { Normalisation } from "./evaluate.ts";
import { promptsOf } from "./generate.ts";
import { readStart, startedFrom, type Start } from "./imitation.ts";
import { labelledSchema, parsedRow, readRows } from "./preferences.ts";
import { judgeOf, scaleFor } from "./reward-source.ts";
import type { PolicySettings } from "./settings.ts";
import { runStage } from "./stage.ts";

export interface PolicyOptions extends PolicySettings {
  hone: Hone;
  names: JudgeNames;
  /** Labelled preferences: the prompts of `policy` are trained on, those of `test` measure. */
  labelled: string;
  start: string;
  /** The reward, and what it is normalised by. */
  normalisation: string;
  /** The ground truth. */
  scorer: ExaminedJudge;
  scorerFile?: string | undefined;
  out: string;
  model: string;
  temperature: number;
  answerTokens: number;
  /** The control: shuffles the rewards within each group, so that they say nothing about the answers. */
  shuffleRewards?: boolean | undefined;
  concurrency: number;
  seed: number;
  onEvent?: ((event: RunEvent) => void) | undefined;
  signal: AbortSignal;
}

const normalisationSchema = z.object({
  reward: z.string(),
  ...{ scale: z.number(), scaleShare: z.number(), scaleSeed: z.number() },
  onPolicyShare: z.number().nullable(),
  ...{ mean: z.number(), deviation: z.number().positive(), answers: z.int() },
}) satisfies z.ZodType<Normalisation>;

/** What a policy has gained by a reward, in the ground truth of the test prompts. */
export interface PolicyGain {
  reward: string;
  onPolicyShare: number | null;
  objective: string;
  model: string;
  policy: string;
  steps: number;
  /** Steps that trained: fewer where the reward no longer told a step's answers apart. */
  trained: number;
  before: number;
  after: number;
  gain: number;
  low: number | null;
  high: number | null;
}

interface Scenario {
  prompt: ChatMessage[];
  sample?: number;
}

/** Trains a policy by policy gradient with a reward, and measures it by the ground truth. */
export async function trainPolicy(options: PolicyOptions): Promise<boolean> {
  const { labelled, start, normalisation, scorer, scorerFile, out, model: name } = options;
  const { objective, beta, steps, groupsPerStep, groupSize, learningRate, seed } = options;
  const { temperature, answerTokens, testSamples, train, shuffleRewards = false } = options;
  const shown = {
    ...{ model: name, objective, beta, steps, groupsPerStep, groupSize, learningRate },
    ...sizesOf(options),
  };
  return await runStage(
    {
      ...{ name: "policy", out },
      inputs: { labelled, sft: start, normalisation, ...(scorerFile && { scorer: scorerFile }) },
      options: {
        ...{ ...shown, temperature, answerTokens, testSamples, train, shuffleRewards, seed },
        scorer: scorer.label,
      },
    },
    async () => {
      const first = await readStart(start);
      if (seed !== first.seed) {
        throw new HoneError(
          `The first policy was made with seed ${first.seed}, and a policy that begins with its weights has the same one. Give --seed ${first.seed}.`,
          { code: "invalid_config", param: "seed" },
        );
      }
      const text = await readFile(normalisation, "utf8");
      const norm = parsedRow(JSON.parse(text), normalisation, normalisationSchema);
      const { judge } = await judgeOf(norm, options.names);
      const task = await taskOf(options, first, norm, judge ?? scorer);
      const folder = out.replace(/\.json$/, "-run");
      const summary = await trainRun(task, {
        ...{ name, out: folder, hone: options.hone, seed, signal: options.signal },
        ...{ taskSource: JSON.stringify(norm), onEvent: options.onEvent, ungated: true },
        shuffleRewards,
      });
      const [before, after] = await Promise.all([
        evaluation(folder, "warmed up"),
        evaluation(folder, "trained"),
      ]);
      // Samples of one prompt are alike: the interval is over prompts.
      const change = compare(byPrompt(before), byPrompt(after), { metric: "gold" });
      const gain: PolicyGain = {
        ...{ reward: norm.reward, onPolicyShare: norm.onPolicyShare, objective },
        ...{ model: name, policy: summary.policy, steps, trained: summary.trained },
        ...{ before: change.before, after: change.after, gain: change.difference },
        ...{ low: change.low, high: change.high },
      };
      return `${JSON.stringify(gain, null, 2)}\n`;
    },
  );
}

function byPrompt(groups: readonly TrajectoryGroup[]): TrajectoryGroup[] {
  const found = new Map<string, TrajectoryGroup>();
  for (const group of groups) {
    const { prompt } = group.scenario as Scenario;
    const key = JSON.stringify(prompt);
    const trajectories = [...(found.get(key)?.trajectories ?? []), ...group.trajectories];
    found.set(key, { ...group, scenario: { prompt }, trajectories });
  }
  return [...found.values()];
}

/** What decides how a step's length follows the gradient's; what is not given is left to the server. */
function sizesOf({ eps, maxGradNorm }: PolicySettings) {
  return { ...(eps !== undefined && { eps }), ...(maxGradNorm !== undefined && { maxGradNorm }) };
}

async function taskOf(
  options: PolicyOptions,
  start: Start,
  norm: Normalisation,
  judge: ExaminedJudge,
) {
  const { objective, beta, steps, groupsPerStep, groupSize, learningRate } = options;
  const prompts = promptsOf(await readRows(options.labelled, labelledSchema));
  const of = (split: string) => prompts.filter((one) => one.split === split);
  return defineTask<Scenario>({
    train: of("policy").map(({ prompt }) => ({ prompt })),
    heldOut: of("test").flatMap(({ prompt }) =>
      Array.from({ length: options.testSamples }, (_, sample) => ({ prompt, sample })),
    ),
    metric: "gold",
    async rollout(model, { prompt }, { temperature, answerTokens, seed }) {
      const seeded = typeof seed === "number" && { seed };
      const request = { messages: prompt, temperature, max_tokens: answerTokens, ...seeded };
      await askModel(model, request, "The policy gave no answer");
      return null;
    },
    // All begin with the first policy's weights, and are held to it.
    async warmUp(_model, { signal }) {
      const { step } = await startedFrom(start, options.model, { hone: options.hone, signal });
      if (step === start.step) return;
      throw new HoneError(
        `${options.model} began after ${step} steps of imitation, and the first policy after ${start.step}.`,
        { code: "step_mismatch" },
      );
    },
    score: (groups, how) =>
      how.mode === "eval"
        ? goldOf(groups, options.scorer, how)
        : rewarded(groups, { judge, norm }, how),
    options: {
      ...{ steps, groupsPerStep, groupSize, learningRate, verdict: "sampled" },
      ...{ temperature: options.temperature, answerTokens: options.answerTokens },
      concurrency: options.concurrency,
      train: {
        ...{ type: objective, beta, reference: start.step },
        ...sizesOf(options),
        ...options.train,
      } as TrainConfig,
    },
  });
}

/** By the reward, scaled and normalised. A group that could not be judged has none; if all could not, the run stops. */
async function rewarded(
  groups: readonly TrajectoryGroup[],
  { judge, norm }: { judge: ExaminedJudge; norm: Normalisation },
  { signal }: ScoreHow,
): Promise<TrajectoryGroup[]> {
  let failure: string | null = null;
  let judgedAny = false;
  const scoredGroups = await Promise.all(
    groups.map(async (group, at) => {
      const factor = scaleFor(norm, (group.scenario as Scenario).prompt);
      const { judgings, error } = await judge.judge(group, { passes: 1, seed: at, signal });
      const scores = judgings[0]?.scores;
      if (scores) judgedAny = true;
      else failure ??= error;
      const metadata = scores ? group.metadata : { ...group.metadata, failed: "judge_failed" };
      return {
        ...group,
        metadata,
        logs: scores ? group.logs : [...group.logs, `${judge.label} gave no scores: ${error}`],
        trajectories: group.trajectories.map((trajectory, nth) => {
          const score = scores?.[nth] ?? null;
          const reward = score === null ? null : (factor * score - norm.mean) / norm.deviation;
          if (reward === null || Number.isFinite(reward)) return { ...trajectory, reward };
          throw new HoneError(
            `${judge.label} gave ${String(score)} as a score. Nothing was trained by it; the run goes on where it is once the reward gives finite numbers.`,
            { code: "judge_failed" },
          );
        }),
      };
    }),
  );
  if (judgedAny || failure === null) return scoredGroups;
  throw new HoneError(
    `${judge.label} scored none of the step's ${groups.length} groups: ${String(failure)} Nothing was trained by it. See to the reward, and start the command again: the run goes on where it is.`,
    { code: "judge_failed" },
  );
}

/** Evaluations are by the ground truth alone, which scores each answer by itself. */
async function goldOf(
  groups: readonly TrajectoryGroup[],
  scorer: ExaminedJudge,
  { signal }: ScoreHow,
): Promise<TrajectoryGroup[]> {
  return await Promise.all(
    groups.map(async (group, at) => {
      const { judgings, error } = await scorer.judge(group, { passes: 1, seed: at, signal });
      const scores = judgings[0]?.scores;
      if (!scores) {
        throw new HoneError(
          `${scorer.label} could not score an answer by itself: ${error ?? "it compares answers, and here is one"}. The ground truth has to be a function or a reward model.`,
          { code: "judge_failed" },
        );
      }
      return {
        ...group,
        trajectories: group.trajectories.map((trajectory, nth) => {
          const gold = scores[nth];
          if (gold === null || gold === undefined) return trajectory;
          return { ...trajectory, reward: gold, metrics: { ...trajectory.metrics, gold } };
        }),
      };
    }),
  );
}

/** The newest evaluation of that label that a run's folder keeps. */
async function evaluation(folder: string, label: string): Promise<TrajectoryGroup[]> {
  const text = await readFile(join(folder, "metrics.jsonl"), "utf8");
  const records = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const record = records.findLast((one) => one["type"] === "evaluation" && one["label"] === label);
  return await readGroups(join(folder, "trajectories", String(record?.["file"])));
}
