import { z } from "zod";
import { messageSchema } from "./chat.ts";
import { modelNameSchema } from "./ids.ts";

/** A conversation, rendered by the reward model's own chat template, or a plain text. */
const scoreItemSchema = z.union(
  [
    z.strictObject({ messages: z.array(messageSchema).min(1) }),
    z.strictObject({ text: z.string().min(1) }),
  ],
  { error: 'expected {"messages": […]} or {"text": "…"}' },
);
export type ScoreItem = z.infer<typeof scoreItemSchema>;

/** What becomes of an item that is longer than the model reads; "truncate" keeps its end and says so. */
export const tooLongSchema = z.enum(["error", "null", "truncate"]);

/** `POST /v1/score` */
export const scoreRequestSchema = z.strictObject({
  /** A reward model of the server, as its operator named it. */
  model: modelNameSchema,
  items: z.array(scoreItemSchema).min(1).max(1024),
  /** What becomes of an item that is longer than the model reads: 400, a null score, or its end is scored. */
  tooLong: tooLongSchema.default("error"),
  /** Of a model with several labels, the one whose probability is the score. */
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
      /** With one label its logit, else the label's probability; null where it was too long. */
      score: z.number().nullable(),
      /** Of the whole item, what was left out included. */
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
