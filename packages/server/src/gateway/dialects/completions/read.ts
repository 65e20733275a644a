import { HoneError, type CompletionRequest } from "@hone/core";
import { earlierOf, makeCall, type Call, type Caller, type GatewayParts } from "../../call.ts";
import { continuePlain, onePrompt, plainMessages, promptIds } from "../../plain-prompt.ts";
import { checkLength } from "../../prompt-length.ts";
import { fullPrompt } from "../../prompt.ts";
import type { Repeated } from "../../retries.ts";

export interface TextCall extends Call {
  request: CompletionRequest;
}

/** OpenAI's. Chats have none. */
const defaultMaxTokens = 16;

/** What the schema cannot say. */
export function checkTextRequest(request: CompletionRequest): void {
  if (request.stream_options && !request.stream) {
    throw new HoneError('stream_options: only with "stream": true. Leave it out, or stream.', {
      code: "unsupported_parameter",
      param: "stream_options",
    });
  }
  if (request.best_of != null && (request.n ?? 1) > request.best_of) {
    throw new HoneError("best_of: it is below n. Leave it out.", {
      code: "unsupported_parameter",
      param: "best_of",
    });
  }
  onePrompt(request);
}

/** What an attempt is remembered by. */
export function textKey(request: CompletionRequest): string {
  return JSON.stringify(["text", onePrompt(request)]);
}

function repeatedText(request: CompletionRequest, ids: readonly number[]): Repeated {
  return {
    key: () => textKey(request),
    isAnswer(completion, all) {
      if (completion.kind !== "text") return false;
      const before = fullPrompt(completion, all);
      return before.length === ids.length && before.every((id, i) => ids[i] === id);
    },
  };
}

/** Tokenises the prompt, and settles what the request left open. */
export async function prepareText(
  parts: GatewayParts,
  caller: Caller,
  request: CompletionRequest,
): Promise<TextCall> {
  const given = onePrompt(request);
  const [{ maxModelLen }, info] = await Promise.all([parts.engine.info(), parts.renderer.info()]);
  if (typeof given === "string") checkLength([given], maxModelLen, info, "prompt");
  const ids = await promptIds(parts.renderer, given);
  const earlier = await earlierOf(parts, caller, repeatedText(request, ids));
  const plain = continuePlain(ids, earlier);
  const call = await makeCall(parts, caller, {
    request,
    prompt: plain.prompt,
    promptParam: "prompt",
    kind: "text",
    // Only what is recorded needs them.
    messages:
      caller.lease.rolloutId === null ? [] : await plainMessages(parts.tokens, given, plain),
    tools: null,
    maxTokens: request.max_tokens ?? defaultMaxTokens,
    topLogprobs: request.logprobs ?? 0,
    format: null,
    idPrefix: "cmpl",
  });
  return { ...call, request };
}
