import { objectiveSchema, type ResolvedTrainConfig, type TrainOp } from "@hone/core";

type Config = Readonly<Record<string, unknown>>;

/** What decides, besides its options, whether a step has something that they could act on. */
interface StepShape {
  /** Those that are taken, which few groups may make fewer than were asked for. */
  optimizerSteps: number;
  /** Completions have rewards or advantages of their own, so that the tokens of a rollout may differ in theirs. */
  ownAdvantages: boolean;
}

/** Options of the ratio π/π_o, each with whether it changes nothing about the gradient where that ratio is 1. */
const ofTheRatio: Record<string, (config: Config, step: StepShape) => boolean> = {
  epsilonLow: () => true,
  // Of CISPO it is the limit of the ratio itself.
  epsilonHigh: ({ type, epsilonHigh }) => type !== "cispo" || Number(epsilonHigh) >= 1,
  delta: () => true,
  temperaturePositive: () => true,
  temperatureNegative: () => true,
  kPositive: isWithoutCorrection,
  lambdaPositive: isWithoutCorrection,
  kNegative: isWithoutCorrection,
  lambdaNegative: isWithoutCorrection,
  importanceLevel: isLevelIdle,
  oldLogprobs: () => true,
};

/**
 * Options that change nothing about a step's gradient because it takes one optimizer step: π is π_o then, their ratio
 * is 1. Only those that have another value than without them. None where a KL in the reward compares with logprobs of
 * a pass of its own, which are the same but for rounding.
 */
export function idleOptions(config: ResolvedTrainConfig, step: StepShape): string[] {
  const given: Config = config;
  const { type, beta, klIn } = given;
  if (step.optimizerSteps !== 1 || type === "custom") return [];
  if (beta && (type === "rloo" || klIn === "reward")) return [];
  const defaults: Config = objectiveSchema.parse({ type });
  return Object.entries(ofTheRatio)
    .filter(([name]) => given[name] !== undefined && given[name] !== defaults[name])
    .filter(([, isIdle]) => isIdle(given, step))
    .map(([name]) => name);
}

/** What is told of them, null where there are none; `optimizerSteps` are those of the plan. */
export function idleWarning(
  { config, groups }: Pick<TrainOp, "config" | "groups">,
  optimizerSteps: number,
): string | null {
  const told = groups.flatMap(({ rollouts }) =>
    rollouts.flatMap(({ completions = {} }) => Object.values(completions)),
  );
  const ownAdvantages = told.some(
    ({ reward, advantage }) => reward !== undefined || advantage !== undefined,
  );
  const names = idleOptions(config, { optimizerSteps, ownAdvantages });
  if (names.length === 0) return null;
  const are = `With one optimizer step the policy is still that of the step's beginning, so these change nothing: ${names.join(", ")}.`;
  return config.optimizerSteps > 1
    ? `${are} They act in steps in which more groups train.`
    : `${are} Leave them out, or set optimizerSteps to 2 or more.`;
}

/** VESPO's weight is of the rollout's ratio to the sampler, of which the correction is the other part. */
function isWithoutCorrection({ samplerCorrection }: Config): boolean {
  return samplerCorrection === "none";
}

/**
 * A rollout's ratio has the mean of its tokens' gradients: that is the same sum, unless something else weighs tokens of
 * a rollout differently. The KL is multiplied by the ratio of either level, and CISPO's ratio has no gradient.
 */
function isLevelIdle(config: Config, { ownAdvantages }: StepShape): boolean {
  if (config["klBiasCorrection"]) return false;
  if (config["type"] === "cispo") return true;
  const { samplerCorrection, mismatchMask, topEntropyQuantile } = config;
  const weighsTokens =
    String(samplerCorrection).startsWith("token") ||
    mismatchMask === "token" ||
    topEntropyQuantile !== 1;
  return !weighsTokens && !ownAdvantages;
}
