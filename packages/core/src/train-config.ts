import { z } from "zod";

/** AdamW's part of a training step. The worker is sent it as it stands. */
export const optimizerSchema = z.object({
  /** Peak learning rate of AdamW. */
  learningRate: z.number().positive().default(3e-5),
  /** Optimizer steps over which the rate rises linearly, counted over the model's life. */
  warmupSteps: z.int().min(0).default(5),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.95),
  weightDecay: z.number().min(0).default(0),
  maxGradNorm: z.number().positive().default(1),
});

/** The default objective; its formula stands in the worker's `train/objectives/policy_gradient.py`. */
export const policyGradientSchema = z.object({
  /** The objective, whose options these are. */
  type: z.literal("policy_gradient").optional().default("policy_gradient"),
  /** The clip range of the ratio to the policy at the start of the operation. */
  epsilonLow: z.number().positive().max(1).default(0.2),
  epsilonHigh: z.number().positive().default(0.2),
  /** Upper limit of the importance weight π_o/π_s. */
  importanceCap: z.number().positive().default(2),
  /** C of the loss: each rollout's sum over its tokens is divided by it. */
  normalizerTokens: z.int().min(1).default(1024),
  /** "group" divides the advantage by the group's standard deviation (ddof 1) + 1e-4. */
  scaleRewards: z.enum(["none", "group"]).default("none"),
});

/** What is trained for, by `type`. The worker is sent it as it stands, and has one file for each. */
export const objectiveSchema = z.discriminatedUnion("type", [policyGradientSchema]);

/** What is left out of the loss. */
export const filtersSchema = z.object({
  /** A rollout with a longer sequence is masked as `too_long`; default: the context length. */
  maxSequenceTokens: z.int().min(1).optional(),
  /** Rollouts whose policy is older than this many steps are masked as `stale`. */
  maxStaleness: z.int().min(0).default(4),
  /** Train completions whose sampling was constrained (temperature 0, top_p < 1, `response_format`). */
  allowConstrained: z.boolean().default(false),
  /**
   * Leave answers that ended at `max_tokens` or the context (`finish_reason` "length") out of the loss, as
   * `truncated`. Their rollouts' rewards stay in the baseline and in R.
   */
  maskTruncatedCompletions: z.boolean().default(false),
});

/** How a step is computed, whatever it trains for. */
export const stepOptionsSchema = z.object({
  /** Optimizer steps per operation; rollouts are split over them by group. */
  optimizerSteps: z.int().min(1).max(64).default(1),
  /** Tokens of a micro-batch. Tokens that its sequences share count once. */
  maxTokensPerMicroBatch: z.int().min(1).default(16384),
  /** Mean |sampler − trainer| logprob above which the step is refused. Default .1 in fp32, .5 in bf16. */
  maxMismatch: z.number().positive().optional(),
});

const shared = { ...optimizerSchema.shape, ...filtersSchema.shape, ...stepOptionsSchema.shape };

/** The options of a training step: a strict object for each `type`. An option that its type lacks is refused by name. */
export const trainConfigSchema = z.discriminatedUnion("type", [
  z.strictObject({ ...policyGradientSchema.shape, ...shared }),
]);
/** The names of all of them. */
export const trainConfigKeys: readonly string[] = [
  ...new Set(trainConfigSchema.options.flatMap(({ shape }) => Object.keys(shape))),
];
export type TrainConfig = z.input<typeof trainConfigSchema>;
export type ResolvedTrainConfig = z.output<typeof trainConfigSchema>;
