import { z } from "zod";
import { modelNameSchema } from "./ids.ts";
import {
  clipOptionsSchema,
  correctionBoundsSchema,
  correctionOptionsSchema,
  corrections,
  deltaOptionsSchema,
  epsilonLow,
  level,
  levelOptionsSchema,
  mismatchOptionsSchema,
  penaltyOptionsSchema,
  policyOptionsSchema,
  positive,
  scales,
} from "./objective-options.ts";

const typed = <Name extends string>(name: Name) => ({
  /** The objective, whose options these are. */
  type: z.literal(name),
});

/** The default objective; its formula stands in the worker's `train/objectives/policy_gradient.py`. */
export const policyGradientSchema = z.object({
  /** The objective, whose options these are. */
  type: z.literal("policy_gradient").optional().default("policy_gradient"),
  /** The clip range of the ratio to the policy at the start of the operation. */
  epsilonLow: epsilonLow.default(0.2),
  epsilonHigh: positive.default(0.2),
  ...policyOptionsSchema.shape,
  /** Divides advantages by the standard deviation of the group's rewards, or of all: ddof 1, + 1e-4, unless `std` is given. */
  scaleRewards: z.enum(scales).default("none"),
  /** Weighs by π_o/π_s, of a token or of the whole rollout, held within bounds or 0 outside of them. */
  samplerCorrection: z.enum(corrections).default("token_truncate"),
  /** Lower bound of that weight. @default none */
  samplerCorrectionMin: positive.optional(),
  /** Upper limit of that weight, 2 if it is not given. */
  importanceCap: positive.optional(),
  /**
   * C of the loss: each rollout's sum over its tokens is divided by it. The mean length of the step's trained rollouts
   * if it is not given, so that the loss is a mean over tokens.
   */
  normalizerTokens: z.int().min(1).optional(),
});

export const grpoSchema = z.object({ ...typed("grpo"), ...clipOptionsSchema.shape });
export const drGrpoSchema = z.object({
  ...typed("dr_grpo"),
  ...clipOptionsSchema.shape,
  /** Divides advantages by the standard deviation of the group's rewards, or of all. TRL's `scale_rewards`. */
  scaleRewards: z.enum(scales).default("none"),
  /** What each rollout's sum over its tokens is divided by. TRL's `max_completion_length`. */
  normalizerTokens: z.int().min(1).default(1024),
});
export const dapoSchema = z.object({ ...typed("dapo"), ...clipOptionsSchema.shape });
export const bnpoSchema = z.object({ ...typed("bnpo"), ...clipOptionsSchema.shape });
export const gspoSchema = z.object({
  ...typed("gspo"),
  ...policyOptionsSchema.shape,
  ...correctionOptionsSchema.shape,
  /** The clip range of the rollout's ratio. */
  epsilonLow: epsilonLow.default(3e-4),
  epsilonHigh: positive.default(4e-4),
  ...deltaOptionsSchema.shape,
});
export const luspoSchema = z.object({
  ...typed("luspo"),
  ...clipOptionsSchema.shape,
  /** The ratio of each token, or the geometric mean of a rollout. TRL's `importance_sampling_level`. */
  importanceLevel: level.default("sequence"),
});
export const cispoSchema = z.object({
  ...typed("cispo"),
  ...levelOptionsSchema.shape,
  /** Upper limit of the ratio itself. TRL's `epsilon_high`. */
  epsilonHigh: positive.default(5),
});
export const sapoSchema = z.object({
  ...typed("sapo"),
  ...levelOptionsSchema.shape,
  /** How steep the gate is where the advantage is positive. TRL's `sapo_temperature_pos`. */
  temperaturePositive: positive.default(1),
  /** The same elsewhere. TRL's `sapo_temperature_neg`. */
  temperatureNegative: positive.default(1.05),
});
export const vespoSchema = z.object({
  ...typed("vespo"),
  ...policyOptionsSchema.shape,
  /** As part of the rollout's ratio. */
  samplerCorrection: z.enum(["none", "token_truncate", "token_mask"]).default("token_truncate"),
  ...correctionBoundsSchema.shape,
  /** Exponent of the rollout's ratio where the advantage is not negative. TRL's `vespo_k_pos`. */
  kPositive: positive.default(2),
  /** Its decay there. TRL's `vespo_lambda_pos`. */
  lambdaPositive: positive.default(3),
  /** TRL's `vespo_k_neg`. */
  kNegative: positive.default(3),
  /** TRL's `vespo_lambda_neg`. */
  lambdaNegative: positive.default(2),
});
export const rlooSchema = z.object({
  ...typed("rloo"),
  ...penaltyOptionsSchema.shape,
  /** Weighs by π_o/π_s, which TRL's RLOOTrainer does not. */
  samplerCorrection: z.enum(corrections).default("none"),
  ...correctionBoundsSchema.shape,
  /** The clip range of the rollout's ratio. */
  epsilonLow: epsilonLow.default(0.2),
  epsilonHigh: positive.default(0.2),
  /** Moves the operation's advantages to mean 0 and deviation 1. TRL's `normalize_advantages`. */
  normalizeAdvantages: z.boolean().default(false),
});
export const importanceSamplingSchema = z.object({
  ...typed("importance_sampling"),
  ...policyOptionsSchema.shape,
});

/** On-policy distillation, without its teacher, which the server resolves; the worker's `distill.py` has the formula. */
export const distillSchema = z.object({
  ...typed("distill"),
  /** Weight of the reverse KL to the teacher. tinker-cookbook's `kl_penalty_coef`. */
  klCoef: positive.default(1),
  /** How much of the KL of the later tokens of its answer a token answers for. tinker-cookbook's `kl_discount_factor`. */
  klDiscount: z.number().min(0).max(1).default(0),
  /** Weight of the advantage of the rewards, reward minus the mean of the group, beside the KL. */
  rewardCoef: z.number().min(0).default(0),
  /** The clip range of the ratio to the policy at the start of the operation. */
  epsilonLow: epsilonLow.default(0.2),
  epsilonHigh: positive.default(0.2),
  /** Upper limit of the importance weight π_o/π_s. */
  importanceCap: positive.default(2),
  ...mismatchOptionsSchema.shape,
});

const policyNumber = z.int().min(0).max(1e9);

/** Where words of feedback stand in a teacher's prompt: in place of the last user message of the request. */
export const defaultFeedbackTemplate =
  "Feedback on an earlier answer to what is asked below:\n\n{feedback}\n\n{message}";

/** Whose answers the student is to give. */
export const teacherSchema = z.union([
  /** The base, without an adapter. "given": the rollouts carry the teacher's logprobs. */
  z.enum(["base", "given"]),
  z.strictObject({
    /** A model of this server. */
    model: modelNameSchema,
    /** The number of its policy. @default the newest served one when the step begins */
    policy: policyNumber.optional(),
  }),
  z.strictObject({
    /**
     * The teacher reads each rollout's `feedback`: in place of the last user message of a request it has this text, with
     * that message for `{message}`. `true`: a text that shows the feedback first, then the message.
     */
    feedback: z.union([
      z.literal(true),
      z
        .string()
        .max(10_000)
        .refine((text) => text.includes("{feedback}") && text.includes("{message}"), {
          error: "it must have a place for {feedback} and one for {message}",
        }),
    ]),
    /** @default the model that is trained */
    model: modelNameSchema.optional(),
    /** @default the policy that the step begins with; of another model the newest served one */
    policy: policyNumber.optional(),
  }),
]);

/** What is trained for, by `type`. The worker is sent it as it stands, and has one file for each. */
export const objectiveSchema = z.discriminatedUnion("type", [
  policyGradientSchema,
  grpoSchema,
  drGrpoSchema,
  dapoSchema,
  bnpoSchema,
  gspoSchema,
  luspoSchema,
  cispoSchema,
  sapoSchema,
  vespoSchema,
  rlooSchema,
  importanceSamplingSchema,
  distillSchema,
]);

/** An objective that the operator registered with `serve --objectives`. */
export const customObjectiveSchema = z.object({
  ...typed("custom"),
  /** What its file calls it. */
  name: z.string().min(1).max(64),
  /** Its own options. The objective's model checks them before the operation is queued. */
  options: z.record(z.string(), z.unknown()).default({}),
});
export type CustomObjective = z.output<typeof customObjectiveSchema>;

type Values = Record<string, unknown>;

/** An option acts only while another is as it needs. The worker has the same list. */
const conditions: [option: string, other: string, acts: (value: unknown) => boolean][] = [
  ["std", "scaleRewards", (scale) => scale !== "none"],
  ["samplerCorrectionMin", "samplerCorrection", (mode) => mode !== "none"],
  ["samplerCorrectionMax", "samplerCorrection", (mode) => mode !== "none"],
  ["importanceCap", "samplerCorrection", (mode) => mode !== "none"],
  ["mismatchMin", "mismatchMask", (mask) => mask !== "none"],
  ["mismatchMax", "mismatchMask", (mask) => mask !== "none"],
  ["klIn", "beta", (beta) => beta !== 0],
  ["klEstimator", "beta", (beta) => beta !== 0],
  ["klBiasCorrection", "beta", (beta) => beta !== 0],
  ["klBiasCorrection", "klIn", (place) => place !== "reward"],
  ["measureKl", "beta", (beta) => beta === 0],
];

/** Bounds that lie the wrong way round train nothing. The numbers are those of bounds that are not given. */
const bounds: [low: string, least: number, high: string, most: number][] = [
  ["mismatchMin", 0.5, "mismatchMax", 5],
  ["samplerCorrectionMin", 0, "samplerCorrectionMax", 3],
  // The same bound of the default objective, older than its peers'.
  ["samplerCorrectionMin", 0, "importanceCap", 2],
];

/** Refuses an option that would do nothing, and bounds under which nothing trains. */
export function actsWith(config: Values, context: z.RefinementCtx): void {
  const refuse = (option: string, message: string): void =>
    context.addIssue({ code: "custom", path: [option], message, input: config[option] });
  for (const [option, other, acts] of conditions) {
    if (config[option] === undefined || config[option] === false) continue;
    if (!(other in config) || acts(config[other])) continue;
    const value = JSON.stringify(config[other]);
    refuse(option, `it does nothing while ${other} is ${value}. Leave it out, or change ${other}`);
  }
  const lacked = config["type"] === "policy_gradient" ? "samplerCorrectionMax" : "importanceCap";
  for (const [low, least, high, most] of bounds) {
    if (high === lacked) continue;
    const { [low]: from = least, [high]: to = most } = config as Record<string, number | undefined>;
    if (from < to) continue;
    if (config[low] === undefined) refuse(high, `it must lie above ${low}, which is ${from}`);
    else refuse(low, `it must lie below ${high}, which is ${to}`);
  }
  const { reference, measureKl, beta } = config;
  if (reference !== undefined && measureKl === false && !beta) {
    refuse("reference", "it does nothing while measureKl is false and there is no beta above 0");
  }
  if (measureKl === false && beta) {
    refuse(
      "measureKl",
      `it does nothing while beta is ${JSON.stringify(beta)}: what the KL weighs in is measured`,
    );
  }
  const { delta } = config as { delta?: number };
  if (delta !== undefined && delta <= 1) {
    refuse("delta", "it must be above 1: no token with a positive advantage would have a gradient");
  }
}

/** Whether a loss has ratios or masks of whole rollouts. The worker refuses a plan that parts them then. */
export function looksAtWholeRollouts(
  objective: z.output<typeof objectiveSchema> | CustomObjective,
): boolean {
  const { type, importanceLevel, samplerCorrection, mismatchMask, offPolicyMaskThreshold } =
    objective as Values;
  return (
    // Nobody knows what its code looks at.
    type === "custom" ||
    type === "gspo" ||
    type === "vespo" ||
    type === "rloo" ||
    importanceLevel === "sequence" ||
    mismatchMask === "sequence" ||
    offPolicyMaskThreshold !== undefined ||
    (typeof samplerCorrection === "string" && samplerCorrection.startsWith("sequence"))
  );
}
