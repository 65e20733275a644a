import { HoneError, issueText, messageSchema } from "@hone/core";
import { z } from "zod";
import { dataRows, readAll } from "../data-rows.ts";

const conversationSchema = z
  .array(messageSchema)
  .min(2)
  .refine((messages) => messages.at(-1)?.role === "assistant", {
    error: "ends with what the assistant says",
  });

/** A line of a preference file, as UltraFeedback (binarized) has it. Columns of its own are not read. */
export const preferenceSchema = z.object({
  prompt: z.string().min(1),
  /** The whole conversation: the prompt, and the better answer as its last message. */
  chosen: conversationSchema,
  rejected: conversationSchema,
  score_chosen: z.number().nullish(),
  score_rejected: z.number().nullish(),
});
export type Preference = z.infer<typeof preferenceSchema>;

/** What a prompt is for: reward models are trained, policies are trained, or both are measured. */
const splits = ["reward_model", "policy", "test"] as const;
export type Split = (typeof splits)[number];

/** A preference that the scorer has labelled. */
export const labelledSchema = preferenceSchema.extend({
  score_chosen: z.number(),
  score_rejected: z.number(),
  split: z.enum(splits),
  /** Whether the scorer liked the other one better than the file did. */
  swapped: z.boolean(),
});
export type Labelled = z.infer<typeof labelledSchema>;

/** On-policy answers to one prompt, with what the scorer gives them. */
export const outputsSchema = z.object({
  prompt: z.array(messageSchema).min(1),
  split: z.enum(splits),
  policy: z.string(),
  outputs: z.array(z.string()).min(1),
  gold: z.array(z.number()),
});
export type Outputs = z.infer<typeof outputsSchema>;

/** Pairs of a reward model: what `model.bradleyTerry` takes, and where each is from. */
export const pairSchema = z.object({
  prompt: z.array(messageSchema).min(1),
  chosen: z.array(messageSchema).min(1),
  rejected: z.array(messageSchema).min(1),
  onPolicy: z.boolean(),
});
export type RewardPair = z.infer<typeof pairSchema>;

/** The rows of a JSONL or Parquet file, each checked; what is wrong is named by its line. */
export async function readRows<Row>(path: string, schema: z.ZodType<Row>): Promise<Row[]> {
  const read = (value: unknown, place: string) => parsedRow(value, place, schema);
  return await readAll(dataRows(path), read, `${path} has no rows.`);
}

export function parsedRow<Row>(value: unknown, place: string, schema: z.ZodType<Row>): Row {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new HoneError(`${place} is not as expected: ${issueText(parsed.error, "it")}.`, {
    code: "invalid_request",
    cause: parsed.error,
  });
}

/** The conversation without its last message, which is the answer. */
export function promptOf(conversation: Preference["chosen"]): Preference["chosen"] {
  return conversation.slice(0, -1);
}

/** Each split has to have something to be trained or measured on. */
export function requireLabelled(rows: readonly Labelled[], path: string): void {
  for (const split of splits) {
    if (rows.some((row) => row.split === split)) continue;
    throw new HoneError(
      `${path} leaves no pair for the split "${split}". Give more pairs, or other shares.`,
      { code: "invalid_config" },
    );
  }
}
