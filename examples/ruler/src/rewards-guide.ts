import type { TrajectoryGroup } from "@hone/core";
import {
  arithmetic,
  codeParses,
  combineRewards,
  exactMatch,
  jsonMatch,
  lengthPenalty,
  numericMatch,
  rewardModel,
  thinkAnswerFormat,
} from "@hone/ruler/rewards";
import type { RewardFunction } from "@hone/ruler/rewards";
import { z } from "zod";

interface Scenario {
  kind: "countdown" | "code" | "email";
  numbers?: number[];
  target?: number;
}

export async function combine(groups: TrajectoryGroup[]) {
  // #region combine
  const kindOf = (group: TrajectoryGroup) => (group.scenario as Scenario).kind;

  const countdown = arithmetic({
    numbers: (_trajectory, { group }) => (group.scenario as Scenario).numbers, // none: does not apply
    target: (_trajectory, { group }) => (group.scenario as Scenario).target,
    use: "each-once",
  });
  const python = codeParses({ language: "python", forbiddenImports: ["os", "subprocess"] });

  const rewards = combineRewards([
    { fn: countdown },
    { fn: thinkAnswerFormat(), weight: 0.1 },
    {
      name: "python",
      fn: (trajectory, context) =>
        kindOf(context.group) === "code" ? python(trajectory, context) : null,
    },
    // What a judge said, where one was asked.
    { name: "judge", fn: ({ metrics }) => metrics["ruler_score"] ?? null, weight: 0.5 },
  ]);
  const { groups: scored, metrics } = await rewards.score(groups);
  console.log(metrics["rewards/arithmetic/mean"], metrics["frac_reward_zero_std"]);
  // #endregion
  return { scored, metrics };
}

// #region own
/** One line of the answer for each rule that it keeps. */
export const politeReply: RewardFunction = ({ messages }) => {
  const last = messages.findLast(({ role }) => role === "assistant");
  const text = typeof last?.content === "string" ? last.content : "";
  if (!text) return 0;
  return (/^(dear|hello|hi)\b/i.test(text) ? 0.5 : 0) + (/\bregards\b/i.test(text) ? 0.5 : 0);
};
// #endregion

// #region matches
export const capital = exactMatch({
  expected: (_trajectory, { group }) => (group.scenario as { capital?: string }).capital,
  normalize: (text) => text.trim().toLowerCase(),
});
export const total = numericMatch({
  expected: ({ metadata }) => (typeof metadata["total"] === "number" ? metadata["total"] : null),
});
export const invoice = jsonMatch({ schema: z.strictObject({ id: z.string(), total: z.number() }) });
export const brief = lengthPenalty({ maxTokens: 800, softTokens: 200 });
// #endregion

// #region model
export const helpful = combineRewards(
  [
    { fn: rewardModel({ model: "helpful" }) },
    {
      name: "kind",
      fn: rewardModel({
        model: "tone", // three labels: rude, neutral, kind
        label: "kind",
        input: ({ messages }) => {
          const last = messages.findLast(({ role }) => role === "assistant");
          return typeof last?.content === "string" ? last.content : null;
        },
        tooLong: "truncate",
      }),
      weight: 0.2,
    },
  ],
  { concurrency: 64 },
);
// #endregion
