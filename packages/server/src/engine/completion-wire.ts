import { z } from "zod";

/** What the engine contract's `POST /v1/completions` answers; other fields of an engine are left alone. */
const choiceSchema = z.object({
  index: z.int().min(0),
  text: z.string(),
  token_ids: z.array(z.int()).nullish(),
  logprobs: z.object({ token_logprobs: z.array(z.number().nullable()) }).nullish(),
  finish_reason: z.string().nullish(),
});
export type CompletionChoice = z.infer<typeof choiceSchema>;

export const completionSchema = z.object({ choices: z.array(choiceSchema) });

/** OpenAI's envelope, and vLLM's, whose `code` is the HTTP status. */
export const errorBodySchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string().nullish(),
    code: z.union([z.string(), z.number()]).nullish(),
    param: z.string().nullish(),
  }),
});

export const modelListSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      parent: z.string().nullish(),
      /** Of an adapter: the folder that it was loaded from. */
      root: z.string().nullish(),
      max_model_len: z.int().nullish(),
    }),
  ),
});
