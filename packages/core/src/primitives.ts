import { z } from "zod";
import { epsSuits, optimizerSchema } from "./train-config.ts";

const idsSchema = z
  .array(
    z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  )
  .min(1);
const numbersSchema = z.array(z.number());

/** A sequence of token ids with what is to be learnt at each place. All its lists have one length. */
const datumSchema = z.strictObject({
  /** What goes through the model. */
  tokens: idsSchema,
  /** What it should say after each token: as a rule `tokens` moved by one. */
  targets: idsSchema,
  /** Of `cross_entropy`: what each target counts; 0 leaves it out, and below 0 it is unlearnt. */
  weights: numbersSchema.optional(),
  /** Of the other losses: the logprob that the sampler gave each target. Any number where the advantage is 0. */
  logprobs: numbersSchema.optional(),
  /** Of the other losses: how much better each target was than expected; 0 leaves it out. */
  advantages: numbersSchema.optional(),
});
export type Datum = z.infer<typeof datumSchema>;

const clips = {
  /** Least value of π/π_s that counts. */
  clipLow: z.number().min(0).max(1).default(0.8),
  /** Greatest value of π/π_s that counts. */
  clipHigh: z.number().min(1).default(1.2),
};

/**
 * What `forward_backward` minimises: sums over tokens, by Tinker's names. The worker's `train/primitives/losses.py`
 * has the formulas.
 */
const tokenLossSchema = z.discriminatedUnion(
  "type",
  [
    z.strictObject({ type: z.literal("cross_entropy") }),
    z.strictObject({ type: z.literal("importance_sampling") }),
    z.strictObject({ type: z.literal("ppo"), ...clips }),
    z.strictObject({ type: z.literal("cispo"), ...clips }),
    z.strictObject({
      type: z.literal("dro"),
      /** How strongly the policy is held to the sampler. */
      beta: z.number().positive().default(0.05),
    }),
  ],
  {
    error: ({ note }) =>
      note === "No matching discriminator"
        ? "it is one of cross_entropy, importance_sampling, ppo, cispo, dro"
        : undefined,
  },
);
export type TokenLoss = z.input<typeof tokenLossSchema>;
export type TokenLossType = TokenLoss["type"];

const ofCrossEntropy = ["weights"] as const;
const ofAdvantages = ["logprobs", "advantages"] as const;

/** What a loss reads of a datum beside its tokens and targets. */
export function readByLoss(
  type: TokenLossType,
): readonly ("weights" | "logprobs" | "advantages")[] {
  return type === "cross_entropy" ? ofCrossEntropy : ofAdvantages;
}

const forwardShape = {
  data: z.array(datumSchema).min(1),
  loss: tokenLossSchema.default({ type: "cross_entropy" }),
  /** Divides the logits: the temperature at which `logprobs` were sampled. */
  temperature: z.number().positive().default(1),
  /** Tokens of a micro-batch. Tokens that its sequences share from their beginning count once. */
  maxTokensPerMicroBatch: z.int().min(1).default(16384),
};

/** Logprobs and loss, and no gradient. */
export const forwardOpSchema = z
  .strictObject({ type: z.literal("forward"), ...forwardShape })
  .superRefine(fits);
/** The gradient of policy N on the data, added to that of earlier calls since policy N was made. */
export const forwardBackwardOpSchema = z
  .strictObject({
    type: z.literal("forward_backward"),
    ...forwardShape,
    /** Lets go of what earlier calls left, such as those of a program that ended before its step. */
    fresh: z.boolean().default(false),
  })
  .superRefine(fits);
export type ForwardOp = z.output<typeof forwardOpSchema>;
export type ForwardBackwardOp = z.output<typeof forwardBackwardOpSchema>;

/** Each list as long as `tokens`, and of the lists those that the loss reads. */
function fits(
  { data, loss }: Pick<ForwardOp, "data" | "loss">,
  context: { addIssue: (issue: { code: "custom"; path: PropertyKey[]; message: string }) => void },
): void {
  const read = readByLoss(loss.type);
  for (const [index, datum] of data.entries()) {
    const refuse = (name: string, message: string) =>
      context.addIssue({ code: "custom", path: ["data", index, name], message });
    for (const name of ["targets", "weights", "logprobs", "advantages"] as const) {
      const list = datum[name];
      const wanted = name === "targets" || read.includes(name);
      if (list === undefined) {
        // Every target counts once unless something else is said.
        if (wanted && name !== "weights") refuse(name, `the loss "${loss.type}" needs it`);
      } else if (!wanted) {
        refuse(name, `the loss "${loss.type}" does not read it. Leave it out`);
      } else if (list.length !== datum.tokens.length) {
        refuse(name, `it has ${list.length} elements, and tokens has ${datum.tokens.length}`);
      }
    }
  }
}

/** AdamW's part of an `optim_step`. A rate is taken as it is given: the loop has its own schedule. */
const optimStepConfigSchema = z
  .strictObject({
    ...optimizerSchema.shape,
    /** Optimizer steps over which the rate rises linearly, counted over the model's life. */
    warmupSteps: z.int().min(0).default(0),
    /** Added to the root of the second moment. With `adamw_8bit` it is at least 1e-10; 1e-8 is usual. */
    eps: z.number().positive().default(1e-16),
  })
  .refine(...epsSuits);
export type OptimStepConfig = z.input<typeof optimStepConfigSchema>;

/** Policy N+1 from the gradients that `forward_backward` has left of policy N. */
export const optimStepOpSchema = z.strictObject({
  type: z.literal("optim_step"),
  config: optimStepConfigSchema.default(() => optimStepConfigSchema.parse({})),
  /** How many calls it should go by. If there are others, the operation fails with `no_gradient`. */
  accumulated: z.int().min(1).optional(),
});
export type OptimStepOp = z.output<typeof optimStepOpSchema>;

const metricsSchema = z.record(z.string(), z.number().nullable());

export const forwardResultSchema = z.object({
  type: z.enum(["forward", "forward_backward"]),
  /** The policy that it is of. */
  step: z.int(),
  policy: z.string(),
  /** The sum over tokens that the loss is. */
  loss: z.number(),
  /** The logprob of each target under the policy, a list for each datum. */
  logprobs: z.array(z.array(z.number())),
  /** How many calls the next `optim_step` goes by, this one included; null for `forward`. */
  accumulated: z.int().nullable(),
  metrics: metricsSchema,
});
export type ForwardResult = z.infer<typeof forwardResultSchema>;

export const optimStepResultSchema = z.object({
  type: z.literal("optim_step"),
  step: z.int(),
  policy: z.string(),
  /** How many calls of `forward_backward` it went by. */
  accumulated: z.int(),
  metrics: metricsSchema,
  checkpoint: z.string().nullable(),
});
export type OptimStepResult = z.infer<typeof optimStepResultSchema>;
