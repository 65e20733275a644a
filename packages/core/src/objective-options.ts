/** Options that several objectives have, in pieces. */
import { z } from "zod";

export const epsilonLow = z.number().positive().max(1);
export const positive = z.number().positive();
const share = z.number().positive().max(1);
export const scales = ["none", "group", "batch"] as const;
export const level = z.enum(["token", "sequence"]);

/** Leaves out what sampler and trainer do not agree on. */
export const mismatchOptionsSchema = z.object({
  /** Trains only where π_o/π_s is within bounds: of each token, or the geometric mean of a rollout ("sequence"). */
  mismatchMask: z.enum(["none", "token", "sequence"]).default("none"),
  /** Their lower bound, .5 if it is not given. */
  mismatchMin: positive.optional(),
  /** Their upper bound, 5 if it is not given. */
  mismatchMax: positive.optional(),
});

export const driftOptionsSchema = z.object({
  /**
   * Where beta is 0: `kl`, the drift from the reference, is measured on every trained token (true, one more forward),
   * on none (false), or on a sample of at most a sixteenth of the step and 4096 tokens (if it is not given). Where beta
   * is above 0 it is measured in any case, and this option is refused.
   */
  measureKl: z.boolean().optional(),
  /**
   * What the KL is measured to: "base", the model with its adapter off (if it is not given), or policy N of the model.
   * That policy has to be kept: pin it before a long run.
   */
  reference: z.union([z.literal("base"), z.int().min(0).max(1e9)]).optional(),
});

export const penaltyOptionsSchema = z.object({
  ...mismatchOptionsSchema.shape,
  /**
   * Leaves out rollouts with a negative advantage that the policy has moved away from: mean(log π_s − log π) above
   * this. TRL's `off_policy_mask_threshold`. @default none
   */
  offPolicyMaskThreshold: positive.optional(),
  /** Trains only this share of the step's tokens, those of the highest entropy. TRL's `top_entropy_quantile`. */
  topEntropyQuantile: share.default(1),
  /** Weight of the KL to the reference. TRL's `beta`. */
  beta: z.number().min(0).default(0),
  /** How the KL is estimated; "k3" in the loss and "k1" in the reward if it is not given, as in TRL. */
  klEstimator: z.enum(["k1", "k2", "k3"]).optional(),
  ...driftOptionsSchema.shape,
  /** Weight of the mean entropy of trained tokens, which is added as a bonus. TRL's `entropy_coef`. */
  entropyCoef: z.number().min(0).default(0),
});

export const policyOptionsSchema = z.object({
  ...penaltyOptionsSchema.shape,
  /** Divides advantages by the standard deviation of the group's rewards, or of all. TRL's `scale_rewards`. */
  scaleRewards: z.enum(scales).default("group"),
  /** Which one: "sample" (ddof 1, + 1e-4, TRL's) if it is not given, or "population" (ddof 0, + 1e-8). */
  std: z.enum(["sample", "population"]).optional(),
  /** What a reward is compared with: the mean of the group, or of the others in it. */
  baseline: z.enum(["mean", "leave_one_out"]).default("mean"),
  /** Adds the KL to the loss of each token (if it is not given), or takes it off the reward of each rollout. */
  klIn: z.enum(["loss", "reward"]).optional(),
  /** Multiplies the KL in the loss by the ratio. TRL's `use_bias_correction_kl`. */
  klBiasCorrection: z.boolean().optional(),
});

export const corrections = [
  "none",
  "token_truncate",
  "token_mask",
  "sequence_truncate",
  "sequence_mask",
] as const;
export const correctionBoundsSchema = z.object({
  /** Lower bound of the correction. TRL's `vllm_importance_sampling_clip_min`. @default none */
  samplerCorrectionMin: positive.optional(),
  /** Upper bound of the correction, 3 if it is not given. TRL's `vllm_importance_sampling_clip_max`. */
  samplerCorrectionMax: positive.optional(),
});
export const correctionOptionsSchema = z.object({
  /**
   * Weighs by π_o/π_s, of a token or of the whole rollout, held within bounds or 0 outside of them. TRL's
   * `vllm_importance_sampling_mode`.
   */
  samplerCorrection: z.enum(corrections).default("sequence_mask"),
  ...correctionBoundsSchema.shape,
});

export const levelOptionsSchema = z.object({
  ...policyOptionsSchema.shape,
  ...correctionOptionsSchema.shape,
  /** The ratio of each token, or the geometric mean of a rollout. TRL's `importance_sampling_level`. */
  importanceLevel: level.default("token"),
});

export const deltaOptionsSchema = z.object({
  /** Upper limit of the ratio, above 1; it acts where the advantage is negative. TRL's `delta`. @default none */
  delta: positive.optional(),
});
export const clipOptionsSchema = z.object({
  ...levelOptionsSchema.shape,
  /** The clip range of the ratio to the policy at the start of the operation. TRL's `epsilon`. */
  epsilonLow: epsilonLow.default(0.2),
  /** Its upper side. TRL's `epsilon_high`. */
  epsilonHigh: positive.default(0.2),
  ...deltaOptionsSchema.shape,
});
