import { z } from "zod";
import { usageSchema } from "./chat-response.ts";
import { stopSchema, streamOptionsSchema } from "./chat.ts";
import { ignored } from "./request-keys.ts";

const tokenIdSchema = z.int().min(0);

/** A text, or its token ids. OpenAI also takes a list of prompts; here the list may hold one prompt. */
const promptSchema = z.union(
  [
    z.string(),
    z.array(tokenIdSchema).min(1),
    z.array(z.string()).min(1),
    z.array(z.array(tokenIdSchema).min(1)).min(1),
  ],
  { error: "expected a text or an array of token ids" },
);

/** OpenAI's legacy completions: a plain prompt, no template. Unknown keys are a 400. */
export const completionRequestSchema = z.strictObject({
  model: z.string().min(1),
  prompt: promptSchema,
  n: z.int().min(1).max(64).nullish(),
  stop: stopSchema.nullish(),
  seed: z.int().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  /** @default 16, as with OpenAI */
  max_tokens: z.int().min(1).nullish(),
  /** How many of the likeliest tokens are listed at each place. 0 gives the sampled token's logprob only. */
  logprobs: z.int().min(0).max(5).nullish(),
  /**
   * 0 tells how likely the model finds each token of the prompt, at temperature 1, as vLLM does. A teacher is asked so.
   * Not with `stream`.
   */
  prompt_logprobs: z.literal(0).nullish(),
  /** Adds the ids of prompt and answer, as vLLM does. An agent of several turns continues with them. */
  return_token_ids: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema.nullish(),
  echo: z.literal(false).nullish(),
  suffix: z.literal("").nullish(),
  best_of: z.literal(1).nullish(),
  frequency_penalty: z.literal(0).nullish(),
  presence_penalty: z.literal(0).nullish(),
  logit_bias: z.strictObject({}).nullish(),
  user: ignored,
  metadata: ignored,
  store: ignored,
  service_tier: ignored,
});
export type CompletionRequest = z.infer<typeof completionRequestSchema>;

/** One entry for each token. Half a character is written as OpenAI does: `bytes:\xe2\x80`. */
const textLogprobsSchema = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number()),
  /** The likeliest tokens of the distribution sampled from, and the sampled one. */
  top_logprobs: z.array(z.record(z.string(), z.number())),
  /** Where each token's text begins in the text of the choice. */
  text_offset: z.array(z.int()),
});
export type TextLogprobs = z.infer<typeof textLogprobsSchema>;

const textFinishSchema = z.enum(["stop", "length"]);

/** With `return_token_ids`; in a stream the prompt's ids stand in a choice's first chunk. */
const choiceIds = {
  token_ids: z.array(z.int()).optional(),
  prompt_token_ids: z.array(z.int()).optional(),
};

/** With `prompt_logprobs`: of each token of the prompt, by its id. Nothing predicts the first: it has null. */
const promptLogprobsSchema = z.array(
  z
    .record(z.string(), z.object({ logprob: z.number(), decoded_token: z.string().nullish() }))
    .nullable(),
);

/** What is read of an answer to it, Hone's or vLLM's. */
export const scoredPromptSchema = z.object({
  choices: z.array(z.object({ prompt_logprobs: promptLogprobsSchema })).min(1),
});

export const textCompletionSchema = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: z.int(),
      text: z.string(),
      logprobs: textLogprobsSchema.nullable(),
      finish_reason: textFinishSchema,
      prompt_logprobs: promptLogprobsSchema.optional(),
      ...choiceIds,
    }),
  ),
  usage: usageSchema,
});
export type TextCompletion = z.infer<typeof textCompletionSchema>;

/** One event of a stream. With `stream_options.include_usage` the last one has no choices and the usage. */
export const textChunkSchema = textCompletionSchema.extend({
  choices: z.array(
    z.object({
      index: z.int(),
      text: z.string(),
      logprobs: textLogprobsSchema.nullable(),
      finish_reason: textFinishSchema.nullable(),
      ...choiceIds,
    }),
  ),
  usage: usageSchema.nullable().optional(),
});
export type TextChunk = z.infer<typeof textChunkSchema>;
