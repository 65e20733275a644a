import { HoneError, type ChatMessage } from "@hone/core";
import type { GroupJudging } from "../doctor/judge.ts";
import { combinedScore, judgeReport } from "../doctor/examine.ts";
import type { JudgeNames } from "../doctor/judges.ts";
import * as statistics from "../doctor/statistics.ts";
import type { Estimate } from "../doctor/statistics.ts";
import { labelledSchema, outputsSchema, promptOf, readRows, type Outputs } from "./preferences.ts";
import {
  isGold,
  judgeOf,
  scaleFor,
  sourceInputs,
  sourceOptions,
  type RewardSource,
} from "./reward-source.ts";
import { scored, type ScoringOptions, type ToScore } from "./scoring.ts";
import { runStage, type Progress } from "./stage.ts";

export interface MeasureOptions extends ScoringOptions {
  /** The policy's answers, as `generate` leaves them. */
  outputs: string;
  out: string;
  source: RewardSource;
  names: JudgeNames;
}

/** What a reward is worth as a teacher of the first policy, on the prompts of the split `test`. */
export interface Evaluation {
  reward: string;
  onPolicyShare: number | null;
  prompts: number;
  /** Of the policy's own answers, whitened by one mean and deviation: the share within prompts. */
  variance: Estimate;
  /** Share of pairs ordered as the ground truth orders them; a tie agrees only with a tie. */
  accuracy: { onPolicy: Estimate; offPolicy: Estimate };
  /** Mean of the variance and of the mean of both accuracies. */
  combined: number;
}

export async function evaluate(options: MeasureOptions & { labelled: string }): Promise<boolean> {
  const { labelled, outputs, out, source, names } = options;
  return await runStage<number[] | null>(
    {
      ...{ name: "evaluate", out, inputs: { labelled, outputs, ...sourceInputs(source) } },
      options: sourceOptions(source),
    },
    async (progress) => {
      const { judge, onPolicyShare } = await judgeOf(source, names);
      const own = (await readRows(outputs, outputsSchema)).filter(({ split }) => split === "test");
      const given = (await readRows(labelled, labelledSchema)).filter(
        (row) => row.split === "test",
      );
      const pairs = given.map((row) => ({
        prompt: promptOf(row.chosen),
        answers: [row.chosen.slice(-1), row.rejected.slice(-1)],
        gold: [row.score_chosen, row.score_rejected],
      }));
      const items = [...own.map(asItem), ...pairs];
      const scores = judge
        ? await scored(items, judge, progress, options)
        : items.map(({ gold }) => gold);
      const label = judge?.label ?? "gold";
      const judged = own.flatMap((row, at) => {
        const known = scores[at];
        return known ? [{ row, scores: scaledBy(source, row.prompt, known) }] : [];
      });
      const report = judgeReport(
        { label, scale: null },
        judged.map(({ scores: given_ }) => judging(given_)),
        judged.map(({ row }) => row.gold),
      );
      const offPolicy = statistics.estimate(
        pairs.flatMap((pair, at) => {
          const known = scores[own.length + at];
          return known ? (statistics.accuracyOf(known, pair.gold) ?? []) : [];
        }),
        (of) => (of.length > 0 ? statistics.mean(of) : null),
      );
      const { variance, accuracy: onPolicy } = report;
      if (!variance || !onPolicy || !offPolicy) {
        throw new HoneError(
          `${label} applies to too few answers of the split "test" to be measured on.`,
          { code: "judge_failed" },
        );
      }
      const accuracy = (onPolicy.value + offPolicy.value) / 2;
      const evaluation: Evaluation = {
        ...{ reward: label, onPolicyShare, prompts: judged.length, variance },
        accuracy: { onPolicy, offPolicy },
        combined: combinedScore(variance.value, accuracy),
      };
      return `${JSON.stringify(evaluation, null, 2)}\n`;
    },
  );
}

/** What a policy's rewards are shifted and divided by, so that those of any source are of one scale. */
export interface Normalisation extends RewardSource {
  onPolicyShare: number | null;
  mean: number;
  /** Of all answers, sample deviation. */
  deviation: number;
  answers: number;
}

/** Mean and deviation of the rewards of the first policy's answers to the prompts that policies are trained on. */
export async function normalise(options: MeasureOptions): Promise<boolean> {
  const { outputs, out, source, names } = options;
  return await runStage<number[] | null>(
    {
      ...{ name: "normalise", out, inputs: { outputs, ...sourceInputs(source) } },
      options: sourceOptions(source),
    },
    async (progress: Progress<number[] | null>) => {
      const { judge, onPolicyShare } = await judgeOf(source, names);
      const own = (await readRows(outputs, outputsSchema)).filter(
        ({ split }) => split === "policy",
      );
      const scores = judge
        ? await scored(own.map(asItem), judge, progress, options)
        : own.map(({ gold }) => gold);
      const rewards = own.flatMap(({ prompt }, at) => scaledBy(source, prompt, scores[at] ?? []));
      const deviation = Math.sqrt(statistics.sampleVariance(rewards));
      if (!(deviation > 0)) {
        throw new HoneError(
          `${judge?.label ?? "gold"} gives all ${rewards.length} answers of the policy the same score: it cannot teach, and there is nothing to normalise by.`,
          { code: "judge_failed" },
        );
      }
      const made: Normalisation = {
        // The policy's stage asks the judge itself, whatever file it stands in.
        reward: isGold(source) ? "gold" : nameOf(source, judge?.label),
        ...{ scale: source.scale ?? 1, scaleShare: source.scaleShare ?? 1 },
        ...{ scaleSeed: source.scaleSeed ?? 0, onPolicyShare },
        ...{ mean: statistics.mean(rewards), deviation, answers: rewards.length },
      };
      return `${JSON.stringify(made, null, 2)}\n`;
    },
  );
}

function nameOf(source: RewardSource, label: string | undefined): string {
  return label?.startsWith("rm:") ? label : source.reward;
}

function asItem({ prompt, outputs, gold }: Outputs): ToScore & { gold: number[] } {
  const answers = outputs.map((content): ChatMessage[] => [{ role: "assistant", content }]);
  return { prompt, answers, gold };
}

function scaledBy(
  source: RewardSource,
  prompt: readonly ChatMessage[],
  scores: readonly number[],
): number[] {
  const factor = scaleFor(source, prompt);
  return scores.map((score) => factor * score);
}

function judging(scores: readonly number[]): GroupJudging {
  return {
    judgings: [{ scores, places: null }],
    ...{ asked: 1, repaired: 0, costUsd: null, seconds: 0, error: null },
  };
}
