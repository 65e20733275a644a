import type { AnthropicError, HoneError } from "@hone/core";
import type { Context } from "hono";
import type { AppEnv } from "./env.ts";

/** Whether the client reads Anthropic's shapes: it asks for messages, or names a version of that API. */
export function speaksAnthropic(c: Context<AppEnv>): boolean {
  const route = c.req.path.replace(/^\/v1\/rollouts\/[^/]+(?=\/v1\/)/, "");
  return /^(\/v1)+\/messages(\/|$)/.test(route) || c.req.header("anthropic-version") !== undefined;
}

const typeOfStatus: Partial<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
};

/** What Anthropic's SDK reads off an error to go on without a thread. */
const noThreads = {
  error_code: "thread_unsupported_request" as const,
  unsupported: ["thread"],
};

/** An error as clients of Anthropic's API read it. They go by the status and its type; code and param are Hone's own. */
export function anthropicError(error: HoneError, requestId: string | null): AnthropicError {
  const { status, message, code, param } = error;
  const type =
    typeOfStatus[status] ?? (status >= 500 || status === 0 ? "api_error" : "invalid_request_error");
  const told = { type, message, code, param, ...(param === "thread" && { details: noThreads }) };
  return { type: "error", error: told, request_id: requestId };
}
