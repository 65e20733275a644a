import type { CompletionRequest } from "@hone/core";
import type { PlainAsk } from "../../ask.ts";
import { readShared, refusal } from "../openai.ts";

/** OpenAI's default for `/v1/completions`. Chats have no such default. */
const defaultMaxTokens = 16;

/** `POST /v1/completions`. What its schema cannot say is checked here. */
export function readCompletion(request: CompletionRequest): PlainAsk {
  const shared = readShared(request);
  if (request.best_of != null && shared.n > request.best_of) {
    throw refusal("best_of", "it is below n. Leave it out.");
  }
  if (request.prompt_logprobs != null && request.stream) {
    throw refusal("prompt_logprobs", "it does not go with stream. Leave stream out.");
  }
  if (request.prompt_logprobs != null && shared.n > 1) {
    throw refusal("prompt_logprobs", "it is the same for all choices. Leave n out.");
  }
  return {
    kind: "text",
    param: "prompt",
    ...shared,
    prompt: onePrompt(request),
    maxTokens: request.max_tokens ?? defaultMaxTokens,
    logprobs: request.logprobs ?? null,
    promptLogprobs: request.prompt_logprobs === 0,
  };
}

/** The one prompt of a request, as a text or as token ids. */
function onePrompt({ prompt }: CompletionRequest): string | readonly number[] {
  if (typeof prompt === "string") return prompt;
  const [first] = prompt;
  if (typeof first === "number") return prompt as number[];
  if (prompt.length > 1) {
    throw refusal(
      "prompt",
      `it holds ${prompt.length} prompts, and a request takes one. Send one request for each.`,
    );
  }
  return first as string | number[];
}
