import { z } from "zod";
import {
  actsWith,
  objectiveSchema,
  bnpoSchema,
  cispoSchema,
  customObjectiveSchema,
  dapoSchema,
  distillSchema,
  drGrpoSchema,
  grpoSchema,
  gspoSchema,
  importanceSamplingSchema,
  luspoSchema,
  policyGradientSchema,
  rlooSchema,
  sapoSchema,
  teacherSchema,
  vespoSchema,
} from "./objectives.ts";

/** AdamW's part of a training step. The worker is sent it as it stands. */
export const optimizerSchema = z.object({
  /**
   * "adamw_8bit" holds the moments of large tensors in 8 bits, by bitsandbytes: a quarter of their memory and of the
   * checkpoint's bytes. A model may change from one to the other at any step. Default: "adamw", in float32.
   */
  optimizer: z.enum(["adamw", "adamw_8bit"]).optional(),
  /** Peak learning rate of AdamW. */
  learningRate: z.number().positive().default(1e-4),
  /** Optimizer steps over which the rate rises linearly, counted over the model's life. */
  warmupSteps: z.int().min(0).default(5),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.95),
  weightDecay: z.number().min(0).default(0),
  maxGradNorm: z.number().positive().default(1),
  /**
   * Added to the root of the second moment. Below the gradients, as 1e-16 is, a step is as long whatever their size is.
   * Far above them a step is (learningRate / eps) times their mean: SGD with momentum, for which a small reward makes
   * small steps. Default: 1e-16, with "adamw_8bit" 1e-8, where it is at least 1e-10.
   */
  eps: z.number().positive().optional(),
});

/** In 8 bits a second moment may be rounded to 0 beside a first one that is not. */
export const epsSuits: [
  suits: (config: Readonly<Record<string, unknown>>) => boolean,
  otherwise: { error: string; path: string[] },
] = [
  ({ optimizer, eps }) => optimizer !== "adamw_8bit" || eps === undefined || Number(eps) >= 1e-10,
  {
    error: 'with optimizer "adamw_8bit" it must be at least 1e-10. Give 1e-8',
    path: ["eps"],
  },
];

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
  /**
   * Where several optimizer steps, or a KL in the reward, need the logprobs from before the first one: "trainer" computes
   * them, one more forward of every trained token. "auto" (if it is not given) takes the sampler's where the first
   * micro-batch shows that they are the same.
   */
  oldLogprobs: z.enum(["auto", "trainer"]).optional(),
  /** Tokens of a micro-batch. Tokens that its sequences share count once. */
  maxTokensPerMicroBatch: z.int().min(1).default(16384),
  /** Mean |sampler − trainer| logprob above which the step is refused. Default .1 in fp32, .5 in bf16. */
  maxMismatch: z.number().positive().optional(),
});

const shared = { ...optimizerSchema.shape, ...filtersSchema.shape, ...stepOptionsSchema.shape };

/** The options of an objective, and those that every step has. */
function withShared<Shape extends z.core.$ZodLooseShape>(objective: z.ZodObject<Shape>) {
  return z
    .strictObject({ ...objective.shape, ...shared })
    .refine(...epsSuits)
    .superRefine(actsWith)
    .superRefine(needsOldLogprobs);
}

/** Nobody knows what the operator's own objectives look at: theirs are always the trainer's. */
function needsOldLogprobs(config: Record<string, unknown>, context: z.RefinementCtx): void {
  const { oldLogprobs, optimizerSteps, type, beta, klIn } = config;
  if (oldLogprobs === undefined) return;
  const refuse = (message: string): void =>
    context.addIssue({ code: "custom", path: ["oldLogprobs"], message, input: oldLogprobs });
  const inReward = Boolean(beta) && (type === "rloo" || klIn === "reward");
  if (optimizerSteps === 1 && !inReward) {
    refuse("it does nothing with one optimizer step and no KL in the reward");
  } else if (oldLogprobs === "auto" && (type === "custom" || config["mismatchMask"] !== "none")) {
    refuse(
      'a custom objective and mismatchMask compare with the sampler: "trainer" is all there is',
    );
  }
}

/** Only a type that there is not: what is wrong with an option of one that there is says itself. */
function unknownType(issue: { code?: string; note?: string }): string | undefined {
  return issue.note === "No matching discriminator"
    ? `it is one of ${types.join(", ")}`
    : undefined;
}

const types = objectiveSchema.options.map(({ shape: { type } }) =>
  type instanceof z.ZodDefault ? type.def.defaultValue : type.value,
);

/** The options of a training step: a strict object for each `type`. An option that its type lacks is refused by name. */
export const trainConfigSchema = z.discriminatedUnion(
  "type",
  [
    withShared(policyGradientSchema),
    withShared(grpoSchema),
    withShared(drGrpoSchema),
    withShared(dapoSchema),
    withShared(bnpoSchema),
    withShared(gspoSchema),
    withShared(luspoSchema),
    withShared(cispoSchema),
    withShared(sapoSchema),
    withShared(vespoSchema),
    withShared(rlooSchema),
    withShared(importanceSamplingSchema),
    withShared(distillSchema.extend({ teacher: teacherSchema })),
    withShared(customObjectiveSchema),
  ],
  { error: unknownType },
);
/** The names of all of them. */
export const trainConfigKeys: readonly string[] = [
  ...new Set(trainConfigSchema.options.flatMap(({ shape }) => Object.keys(shape))),
];
/** Those of one objective; none where there is no such type. */
export function trainConfigKeysOf(type: string): readonly string[] {
  const schema = trainConfigSchema.options.find(({ shape }) => shape.type.safeParse(type).success);
  return schema ? Object.keys(schema.shape) : [];
}
export type TrainConfig = z.input<typeof trainConfigSchema>;
export type ResolvedTrainConfig = z.output<typeof trainConfigSchema>;
