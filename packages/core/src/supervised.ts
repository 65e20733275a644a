import { z } from "zod";
import {
  assistantMessageSchema,
  systemMessageSchema,
  toolMessageSchema,
  toolSchema,
  userMessageSchema,
} from "./chat.ts";
import { epsSuits, optimizerSchema } from "./train-config.ts";

const noWeight = { weight: z.null({ error: "is for assistant messages only" }).optional() };

/** A message of an example: OpenAI's, with the `weight` of its fine-tuning format. */
const exampleMessageSchema = z.discriminatedUnion("role", [
  systemMessageSchema.extend(noWeight),
  userMessageSchema.extend(noWeight),
  toolMessageSchema.extend(noWeight),
  assistantMessageSchema.extend({
    /** 0 leaves the message out of the loss; it stays as context. @default 1 */
    weight: z.literal([0, 1], { error: "is 0 (not trained) or 1 (trained)" }).optional(),
  }),
]);
const messagesSchema = z.array(exampleMessageSchema).min(1);

/** A conversation to imitate, as a line of OpenAI's fine-tuning files holds it. */
export const conversationSchema = z.strictObject({
  messages: messagesSchema,
  tools: z.array(toolSchema).nullish(),
  /** Stands in OpenAI's files. It changes nothing about what is trained. */
  parallel_tool_calls: z.boolean().nullish(),
});
export type Conversation = z.infer<typeof conversationSchema>;

/** A rollout of this server to imitate: trained on the ids that were sampled, which are in the ledger. */
const rolloutExampleSchema = z.strictObject({ rolloutId: z.string() });

/** What `sft` trains on. */
export const exampleSchema = z.union([conversationSchema, rolloutExampleSchema]);
export type Example = z.infer<typeof exampleSchema>;

/** Two ways to go on with one conversation, and which of them is better. */
const conversationPairSchema = z.strictObject({
  prompt: messagesSchema,
  tools: z.array(toolSchema).nullish(),
  /** The messages that follow the prompt in the better conversation; all assistant messages of it train. */
  chosen: messagesSchema,
  rejected: messagesSchema,
});

/** Two rollouts of this server: all answers of both are compared, by the ids that were sampled. */
const rolloutPairSchema = z.strictObject({
  chosen: rolloutExampleSchema,
  rejected: rolloutExampleSchema,
});

/** What `dpo` and `bradley_terry` train on. */
export const pairSchema = z.union([conversationPairSchema, rolloutPairSchema]);
export type ConversationPair = z.infer<typeof conversationPairSchema>;
export type Pair = z.infer<typeof pairSchema>;

/** Imitation: mean cross-entropy over the trained tokens. It has no options of its own. */
export const sftObjectiveSchema = z.object({
  type: z.literal("sft").optional().default("sft"),
});

/** Direct preference optimisation; the formulas stand in the worker's `train/objectives/dpo.py`. */
export const dpoObjectiveSchema = z.object({
  type: z.literal("dpo").optional().default("dpo"),
  /** How strongly the policy is held to the reference; for `ipo` the τ of its paper. */
  beta: z.number().positive().default(0.1),
  /** `sigmoid_norm` is `sigmoid` of log ratios per token, so that long answers weigh no more than short ones. */
  loss: z.enum(["sigmoid", "sigmoid_norm", "ipo"]).default("sigmoid"),
  /** The share of pairs that are believed to be the wrong way round. Not with `ipo`. */
  labelSmoothing: z.number().min(0).lt(0.5).default(0),
  /** Weight of a cross-entropy per token on the chosen answers beside the preference (RPO). */
  sftWeight: z.number().min(0).default(0),
  /**
   * What the policy is held to: the base with the adapter off, the policy that the step begins with, or policy `N` of
   * the model, as the one that `sft` ended with. That policy has to be kept: pin it before a long run.
   */
  reference: z.union([z.enum(["base", "start"]), z.int().min(0).max(1e9)]).default("base"),
});

/** A reward model by Bradley and Terry; the formula stands in the worker's `train/objectives/bradley_terry.py`. */
export const bradleyTerryObjectiveSchema = z.object({
  type: z.literal("bradley_terry").optional().default("bradley_terry"),
  /** Weight of the squared sum of a pair's rewards, which keeps them around 0. */
  centering: z.number().min(0).default(0.01),
});

const limits = {
  /** A longer example is left out as `too_long`; default: the context length. */
  maxSequenceTokens: z.int().min(1).optional(),
  /** Tokens of a micro-batch. Tokens that its sequences share count once. */
  maxTokensPerMicroBatch: z.int().min(1).default(16384),
};

/** The options of a step of `sft`. */
export const sftConfigSchema = z
  .strictObject({
    ...optimizerSchema.shape,
    ...limits,
    /**
     * What of an example is learnt: what the assistant says, its last message alone, or every token, prompts and
     * tools' answers included.
     */
    trainOn: z.enum(["assistant", "last_assistant", "all"]).default("assistant"),
  })
  .refine(...epsSuits);
export type SftConfig = z.input<typeof sftConfigSchema>;

/** The options of a step of `dpo`. */
export const dpoConfigSchema = z
  .strictObject({
    ...optimizerSchema.shape,
    /** Peak learning rate of AdamW. */
    learningRate: z.number().positive().default(1e-5),
    ...limits,
    ...dpoObjectiveSchema.omit({ type: true }).shape,
  })
  .refine(...epsSuits)
  .refine(({ loss, labelSmoothing }) => loss !== "ipo" || labelSmoothing === 0, {
    error: 'it has no meaning with loss: "ipo". Leave it out, or choose another loss',
    path: ["labelSmoothing"],
  });
export type DpoConfig = z.input<typeof dpoConfigSchema>;

/** The options of a step of `bradley_terry`. */
export const bradleyTerryConfigSchema = z
  .strictObject({
    ...optimizerSchema.shape,
    ...limits,
    ...bradleyTerryObjectiveSchema.omit({ type: true }).shape,
  })
  .refine(...epsSuits);
export type BradleyTerryConfig = z.input<typeof bradleyTerryConfigSchema>;

const common = {
  /** Nothing is trained: the result says how well policy N does on the examples. */
  evaluate: z.boolean().default(false),
  /** The dataset cursor after this step, committed with the checkpoint. */
  cursor: z.unknown().optional(),
};

/** One step of imitation. */
export const sftOpSchema = z.strictObject({
  type: z.literal("sft"),
  examples: z.array(exampleSchema).min(1),
  config: sftConfigSchema.default(() => sftConfigSchema.parse({})),
  ...common,
});
export type SftOp = z.output<typeof sftOpSchema>;

/** One step on preferences. */
export const dpoOpSchema = z.strictObject({
  type: z.literal("dpo"),
  examples: z.array(pairSchema).min(1),
  config: dpoConfigSchema.default(() => dpoConfigSchema.parse({})),
  ...common,
});
export type DpoOp = z.output<typeof dpoOpSchema>;

/** One step of a reward model on preferences: a scalar head is trained beside the adapter. */
export const bradleyTerryOpSchema = z.strictObject({
  type: z.literal("bradley_terry"),
  examples: z.array(pairSchema).min(1),
  config: bradleyTerryConfigSchema.default(() => bradleyTerryConfigSchema.parse({})),
  ...common,
});
export type BradleyTerryOp = z.output<typeof bradleyTerryOpSchema>;
