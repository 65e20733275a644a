import {
  HoneError,
  policyName,
  refuseUnknownOptions,
  requireNumber,
  textCompletionSchema,
  wrongKind,
} from "@hone/core";
import type { Transport } from "@hone/transport";
import { requireSignal } from "../argument-kinds.ts";

export interface SampleOptions {
  /** The most tokens of an answer. @default 256 */
  maxTokens?: number | undefined;
  /** @default 1 */
  temperature?: number | undefined;
  /** Answers to the same prompt. @default 1 */
  n?: number | undefined;
  /** Texts that end an answer. They are part of its ids, and not of its text. */
  stop?: string | string[] | undefined;
  seed?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** One answer, ready to be learnt from. */
export interface Sample {
  /** What was sampled, the token that ended it included. */
  ids: number[];
  /** The logprob of each under the policy, at the temperature that it was sampled at. */
  logprobs: number[];
  text: string;
  /** `length` where `maxTokens` or the context cut it. */
  finishReason: "stop" | "length";
}

export interface Samples {
  /** The policy `name@N` that gave them. */
  policy: string;
  promptIds: number[];
  samples: Sample[];
}

const known = ["maxTokens", "temperature", "n", "stop", "seed", "signal"] as const;

/** What `Policy.sample` does. */
export async function sample(
  { transport, name, step }: { transport: Transport; name: string; step: number | null },
  prompt: string | readonly number[],
  options: SampleOptions,
): Promise<Samples> {
  refuseUnknownOptions("sample()", options, known);
  requireSignal("sample()", options);
  if (typeof prompt !== "string" && !Array.isArray(prompt)) {
    throw wrongKind("sample()", "a text or a list of token ids", prompt, "prompt");
  }
  const { maxTokens = 256, temperature = 1, n = 1, stop, seed, signal } = options;
  // JSON writes NaN as null, which the server reads as "not given".
  requireNumber("maxTokens", maxTokens, { whole: true, least: 1 });
  requireNumber("temperature", temperature, { least: 0, most: 2 });
  requireNumber("n", n, { whole: true, least: 1, most: 64 });
  if (seed !== undefined) requireNumber("seed", seed, { whole: true });
  const answer = await transport.json("POST", "/v1/completions", textCompletionSchema, {
    body: {
      ...{ model: step === null ? name : policyName(name, step), prompt, n, temperature },
      ...{ max_tokens: maxTokens, stop, seed, logprobs: 0, return_token_ids: true },
    },
    signal,
  });
  const samples = answer.choices.map(({ token_ids, logprobs, text, finish_reason }): Sample => {
    if (token_ids?.length !== logprobs?.token_logprobs.length || !token_ids || !logprobs) {
      throw new HoneError("The server gave another number of token ids than of logprobs.", {
        code: "invalid_response",
      });
    }
    return { ids: token_ids, logprobs: logprobs.token_logprobs, text, finishReason: finish_reason };
  });
  return {
    policy: answer.model,
    promptIds: answer.choices[0]?.prompt_token_ids ?? [],
    samples,
  };
}
