import { HoneError } from "@hone/core";
import { z } from "zod";
import type { TokenChance } from "../ports/engine.ts";

/** What the engine contract's `POST /v1/completions` answers; other fields of an engine are left alone. */
const choiceSchema = z.object({
  index: z.int().min(0),
  text: z.string(),
  token_ids: z.array(z.int()).nullish(),
  logprobs: z
    .object({
      token_logprobs: z.array(z.number().nullable()),
      /** Keyed by "token_id:7", as the server asks for. */
      top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullish(),
    })
    .nullish(),
  prompt_logprobs: z
    .array(z.record(z.string(), z.object({ logprob: z.number() })).nullable())
    .nullish(),
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

/** vLLM's word for a token that cannot be sampled: JSON has no infinity. */
const impossible = -9999;

/**
 * The likeliest tokens at each place, best first. vLLM adds the sampled token where it is not one of them,
 * and lists tokens that top_p has ruled out.
 */
export function likeliest(choice: CompletionChoice, places: number, top: number): TokenChance[][] {
  const given = choice.logprobs?.top_logprobs ?? [];
  if (given.length !== places) throw notTop(`${given.length} lists for ${places} token ids`);
  return given.map((entries) =>
    Object.entries(entries ?? {})
      .filter(([, logprob]) => logprob > impossible)
      .map(([name, logprob]) => ({ id: tokenId(name), logprob }))
      .sort((a, b) => b.logprob - a.logprob)
      .slice(0, top),
  );
}

/** How likely each token of the prompt is, but the first, which nothing predicts. */
export function promptLogprobsOf(choice: CompletionChoice, prompt: readonly number[]): number[] {
  const given = choice.prompt_logprobs ?? [];
  return prompt.slice(1).map((id, at) => {
    const logprob = given[at + 1]?.[String(id)]?.logprob;
    if (logprob !== undefined && given.length === prompt.length) return logprob;
    throw new HoneError(
      `The engine told no logprob of token ${at + 1} of the prompt. It must support prompt_logprobs.`,
      { code: "engine_error" },
    );
  });
}

function tokenId(name: string): number {
  const id = /^token_id:(\d+)$/.exec(name)?.[1];
  if (id !== undefined) return Number(id);
  throw notTop("tokens without their ids");
}

function notTop(what: string): HoneError {
  return new HoneError(
    `The engine sent ${what} in top_logprobs. It must support logprobs and return_tokens_as_token_ids.`,
    { code: "engine_error" },
  );
}
