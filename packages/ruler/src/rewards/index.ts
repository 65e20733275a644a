export { combineRewards } from "./combine-rewards.ts";
export type {
  CombinedRewards,
  CombineOptions,
  RewardCombiner,
  WeightedReward,
} from "./combine-rewards.ts";
export { aggregate } from "./aggregate.ts";
export type { Aggregated, Aggregation, ScaleRewards } from "./aggregate.ts";
export { named } from "./reward-function.ts";
export type { Reader, RewardContext, RewardFunction } from "./reward-function.ts";
export {
  completionAsSampled,
  completionText,
  completionWithThinking,
  fencedCode,
  taggedAnswer,
  taggedAnswerOnOneLine,
} from "./completion-text.ts";
export { thinkAnswerFormat, thinkFormat } from "./format-rewards.ts";
export { arithmetic } from "./arithmetic-reward.ts";
export type { ArithmeticOptions } from "./arithmetic-reward.ts";
export { evaluateExpression } from "./expression.ts";
export type { EvaluatedExpression } from "./expression.ts";
export { codeParses, parseCode } from "./code-reward.ts";
export type { CodeOptions } from "./code-reward.ts";
export type { CodeLanguage, ParsedCode } from "./parsed-code.ts";
export { tutorialArithmetic, tutorialCode, tutorialFormat } from "./tutorial-rewards.ts";
export { exactMatch, jsonMatch, lengthPenalty, numericMatch } from "./text-rewards.ts";
export type { JsonSchema } from "./json-schema.ts";
export { rewardModel } from "./reward-model.ts";
export type { RewardModelOptions } from "./reward-model.ts";
