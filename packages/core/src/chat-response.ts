import { z } from "zod";
import { toolCallSchema } from "./chat.ts";

/** What the gateway answers in OpenAI's chat dialect. `model` is the policy sampled from, as `name@N`. */
const finishReasonSchema = z.enum(["stop", "length", "tool_calls"]);
export type FinishReason = z.infer<typeof finishReasonSchema>;

const topLogprobSchema = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
});
export type TopLogprob = z.infer<typeof topLogprobSchema>;

export const tokenLogprobSchema = topLogprobSchema.extend({
  /** The likeliest tokens of the distribution sampled from, best first. */
  top_logprobs: z.array(topLogprobSchema),
});
export type TokenLogprob = z.infer<typeof tokenLogprobSchema>;

const choiceLogprobsSchema = z
  .object({ content: z.array(tokenLogprobSchema), refusal: z.null() })
  .nullable();

export const usageSchema = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
});
export type Usage = z.infer<typeof usageSchema>;

const chatChoiceSchema = z.object({
  index: z.int(),
  message: z.object({
    role: z.literal("assistant"),
    content: z.string().nullable(),
    refusal: z.null(),
    tool_calls: z.array(toolCallSchema).optional(),
    reasoning_content: z.string().optional(),
  }),
  logprobs: choiceLogprobsSchema,
  finish_reason: finishReasonSchema,
});
export type ChatChoice = z.infer<typeof chatChoiceSchema>;

export const chatCompletionSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(chatChoiceSchema),
  usage: usageSchema,
});
export type ChatCompletion = z.infer<typeof chatCompletionSchema>;

/** One event of a stream. With `stream_options.include_usage` the last one has no choices and the usage. */
export const chatChunkSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: z.int(),
      delta: z.object({
        role: z.literal("assistant").optional(),
        content: z.string().nullable().optional(),
        tool_calls: z.array(toolCallSchema.extend({ index: z.int() })).optional(),
        reasoning_content: z.string().optional(),
      }),
      logprobs: choiceLogprobsSchema,
      finish_reason: finishReasonSchema.nullable(),
    }),
  ),
  usage: usageSchema.nullable().optional(),
});
export type ChatChunk = z.infer<typeof chatChunkSchema>;

/** An entry of `GET /v1/models`. */
export const modelEntrySchema = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
});
export type ModelEntry = z.infer<typeof modelEntrySchema>;
