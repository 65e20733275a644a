import { z } from "zod";
import { messageSchema } from "./chat.ts";
import { modelRefSchema } from "./ids.ts";

/** A conversation, rendered by the chat template of the reward model or of the base, or a plain text. */
const scoreItemSchema = z.union(
  [
    z.strictObject({ messages: z.array(messageSchema).min(1) }),
    z.strictObject({ text: z.string().min(1) }),
  ],
  { error: 'expected {"messages": […]} or {"text": "…"}' },
);
export type ScoreItem = z.infer<typeof scoreItemSchema>;

/** What happens to an item that is longer than the model reads; "truncate" scores its end and says so. */
export const tooLongSchema = z.enum(["error", "null", "truncate"]);

/** `POST /v1/score` */
export const scoreRequestSchema = z.strictObject({
  /**
   * A reward model of the server, as its operator named it; or a model whose head `bradley_terry` trained, `name` for
   * its newest served policy or `name@N`. A reward model goes before a model of the same name.
   */
  model: modelRefSchema,
  items: z.array(scoreItemSchema).min(1).max(1024),
  /** What happens to an item that is longer than the model reads: a 400, a null score, or a score of its end. */
  tooLong: tooLongSchema.default("error"),
  /** If the model has several labels, the one whose probability is the score. */
  label: z.string().nullish(),
});
export type ScoreRequest = z.input<typeof scoreRequestSchema>;
export type ResolvedScoreRequest = z.output<typeof scoreRequestSchema>;

export const rewardModelSchema = z.object({
  name: z.string(),
  /** The longest sequence that it reads. */
  maxTokens: z.int(),
  labels: z.array(z.string()),
});
export type RewardModelInfo = z.infer<typeof rewardModelSchema>;

export const scoresSchema = z.object({
  object: z.literal("hone.scores"),
  model: rewardModelSchema,
  /** In the order of the items. */
  data: z.array(
    z.object({
      /** The logit of a model with one label, else the label's probability. Null if the item was too long. */
      score: z.number().nullable(),
      /** Tokens of the whole item, including those that were left out. */
      tokens: z.int(),
      truncated: z.boolean(),
    }),
  ),
});
export type Scores = z.infer<typeof scoresSchema>;

/** `GET /v1/reward-models` */
export const rewardModelListSchema = z.object({
  object: z.literal("list"),
  data: z.array(rewardModelSchema),
});
export type RewardModelList = z.infer<typeof rewardModelListSchema>;
