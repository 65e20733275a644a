import { HoneError } from "@hone/core";
import type { EngineRequest } from "../ports/engine.ts";
import { errorBodySchema } from "./completion-wire.ts";

/** Errors of sockets before any answer: the engine is not there, so the same request may be sent again. */
const absent = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "EPIPE",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

export function isAbort(error: unknown): boolean {
  return (
    error instanceof Error &&
    (["AbortError", "TimeoutError"].includes(error.name) || codeOf(error) === "UND_ERR_ABORTED")
  );
}

function codeOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "code" in error
    ? String(error.code)
    : undefined;
}

/** An error of the transport, before the response's headers. */
export function connectionError(error: unknown): unknown {
  if (HoneError.isInstance(error) || isAbort(error)) return error;
  if (absent.has(codeOf(error) ?? "")) {
    return new HoneError(
      "The engine does not answer. It may be restarting; send the request again.",
      {
        code: "engine_unavailable",
        cause: error,
        retryAfterMs: 1000,
      },
    );
  }
  return new HoneError("The request to the engine failed. The server's log has the cause.", {
    code: "engine_error",
    cause: error,
  });
}

/** An error of the transport after the headers: what was sampled so far is incomplete. */
export function brokenStream(cause?: unknown): HoneError {
  return new HoneError(
    "The engine ended before the completion was complete. Send the request again.",
    { code: "engine_error", cause },
  );
}

const noToken = new Error("no token");

/** A whole answer without a single token, not even one that ends it: no model gives such a one. */
export function emptyAnswer(): HoneError {
  return new HoneError("The engine answered with no token.", {
    ...{ code: "engine_error", cause: noToken },
  });
}

export function isEmptyAnswer(error: unknown): boolean {
  return HoneError.isInstance(error) && error.cause === noToken;
}

/** The engine's own error answer of `POST /v1/completions`. */
export function completionError(
  status: number,
  body: string,
  { model, format }: Pick<EngineRequest, "model" | "format">,
): HoneError {
  const { message, code } = readError(body);
  if (status === 404) {
    return new HoneError(
      `The engine does not serve "${model}". Ask GET /v1/models for the policies it serves.`,
      { code: "policy_not_found", param: "model", cause: message },
    );
  }
  if (status === 400 && (code === "context_length_exceeded" || isTooLong(message))) {
    return new HoneError(`The prompt does not fit the context: ${message}`, {
      code: "context_length_exceeded",
      param: "messages",
    });
  }
  if (status === 400 && format?.type === "grammar") {
    return new HoneError(`The engine cannot hold an answer to a call of these tools. ${message}`, {
      code: "unsupported_parameter",
      param: "tools",
    });
  }
  if (status === 400 && format) {
    // The server has checked everything else in the request, so it is the format that the engine refuses.
    return new HoneError(`The engine cannot hold an answer to this response_format. ${message}`, {
      code: "unsupported_parameter",
      param:
        format.type === "json_schema" ? "response_format.json_schema.schema" : "response_format",
    });
  }
  if (status === 503 || status === 429) {
    return new HoneError("The engine takes no requests now. Send it again in a second.", {
      code: "engine_unavailable",
      cause: message,
      retryAfterMs: 1000,
    });
  }
  if (status >= 400 && status < 500) {
    return new HoneError(`The engine refused the request: ${message}`, {
      code: status === 400 || status === 422 ? "invalid_request" : "engine_error",
    });
  }
  return new HoneError("The engine failed on this request. Its log has the cause.", {
    code: "engine_error",
    cause: message,
  });
}

/** vLLM's grammars are those of the back end that it was started with, in other languages than ours. */
export function noCallGrammar(): HoneError {
  return new HoneError(
    "tool_choice: with vLLM as the engine an answer cannot be held to a call, nor to a call or a format. " +
      'Send "auto" without response_format, or "none"; or use the embedded engine.',
    { code: "unsupported_parameter", param: "tool_choice" },
  );
}

/** Answers of the adapter routes; vLLM sends plain text there. */
export function adapterError(
  action: "load" | "unload",
  status: number,
  body: string,
  policy: string,
): HoneError {
  const { message } = readError(body);
  const text = `The engine could not ${action} "${policy}": ${message}`;
  if (status === 404) {
    return new HoneError(text, { code: action === "load" ? "not_found" : "policy_not_found" });
  }
  // vLLM calls it a failure of its own. It would fail again, and other policies can be served all the same.
  const [, rank, highest] =
    /LoRA rank (\d+) is greater than max_lora_rank (\d+)/.exec(message) ?? [];
  if (rank) {
    return new HoneError(
      `The engine could not ${action} "${policy}": its rank is ${rank}, and vLLM was started for ${highest} at most. ` +
        `A server with --engine vllm starts vLLM for the highest rank of its models: start it again. A vLLM of your own needs --max-lora-rank ${rank}.`,
      { code: "bad_adapter" },
    );
  }
  if (status >= 400 && status < 500) return new HoneError(text, { code: "bad_adapter", status });
  return new HoneError(text, { code: "engine_error" });
}

function readError(body: string): { message: string; code: string | null } {
  try {
    const parsed = errorBodySchema.safeParse(JSON.parse(body));
    if (parsed.success) {
      const { message, code } = parsed.data.error;
      return { message, code: typeof code === "string" ? code : null };
    }
  } catch {
    // Not JSON: a plain-text answer, or a proxy's page.
  }
  return { message: body.slice(0, 500).trim() || "no message", code: null };
}

/**
 * vLLM has no code for it, only wordings. Where the prompt fills the context exactly, it complains of a
 * max_tokens of 0 that it made itself: we ask for one token at least.
 */
function isTooLong(message: string): boolean {
  return /maximum (model|context) length|longer than the maximum|context length|max_model_len|max_tokens must be at least 1/i.test(
    message,
  );
}
