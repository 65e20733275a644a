import { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from "openai";
import { HoneError } from "@hone/core";
import { mayPass, retryAdvice, retryAfterMs, TimeLimitReached } from "@hone/transport";
import { JudgeError } from "./judge-error.ts";
import type { JudgeFailure } from "./judge-error.ts";
import type { JudgeTarget } from "./judge-target.ts";
import { redactError, redactText } from "./redact.ts";
import { AttemptFailure } from "./retry.ts";

const noRetry = new Set([
  "insufficient_quota",
  "billing_hard_limit_reached",
  "billing_not_active",
  "insufficient_balance",
  "credit_balance_too_low",
]);

/** What an attempt's error means: of which kind it is, and whether another attempt may help. */
export function failureOf(
  error: unknown,
  { target, baseURL }: { target: JudgeTarget; baseURL: string },
  timeoutMs: number,
): unknown {
  if (HoneError.isInstance(error)) return error;
  const fail = (
    failure: JudgeFailure,
    message: string,
    retry: { retryable: boolean; retryAfterMs?: number | null } = { retryable: false },
    status?: number,
  ): AttemptFailure =>
    new AttemptFailure(
      new JudgeError(redactText(message, target.secrets), {
        failure,
        cause: redactError(error, target.secrets),
        status,
      }),
      { retryable: retry.retryable, retryAfterMs: retry.retryAfterMs ?? null },
    );
  if (
    error instanceof TimeLimitReached ||
    error instanceof APIUserAbortError ||
    error instanceof APIConnectionTimeoutError
  ) {
    return fail(
      "timeout",
      `${target.label} gave no answer within ${timeoutMs} ms. Raise timeoutMs or deadlineMs.`,
      { retryable: true },
    );
  }
  if (error instanceof SyntaxError) {
    return fail("provider_error", `${target.label} answered with something that is not JSON.`, {
      retryable: true,
    });
  }
  if (error instanceof APIConnectionError || !(error instanceof APIError)) {
    return fail(
      "unreachable",
      `${target.label} could not be reached at ${baseURL} (${rootError(error)}).`,
      { retryable: true },
    );
  }
  const { status, code, type, message } = error as {
    status?: number;
    code?: unknown;
    type?: unknown;
    message: string;
  };
  // Keys first: one that is cut in two would be recognised no more.
  const text = redactText(message, target.secrets).slice(0, 500);
  const said = `${target.label} answered ${status ?? "an error"}: ${text}`;
  if (status === 402 || noRetry.has(String(code)) || noRetry.has(String(type))) {
    return fail(
      "quota_exhausted",
      `${said}. Its quota is used up: add credit, or take another judge.`,
      { retryable: false },
      status,
    );
  }
  if (status === 401 || status === 403) {
    return fail("unauthorized", `${said}. Check the key.`, { retryable: false }, status);
  }
  const headers = error.headers as Headers | undefined;
  const retryable =
    retryAdvice(headers) ?? (status === undefined || status === 409 || mayPass(status));
  return fail(
    status === 429 ? "rate_limited" : "provider_error",
    said,
    { retryable, retryAfterMs: retryAfterMs(headers) },
    status,
  );
}

/**
 * The error in a body that came under status 200, as OpenRouter sends it once it has begun to answer:
 * `{error: {code: 429, …}}`, or an error in the choice. It is treated as that status would be.
 */
export function errorInBody(body: unknown, headers: Headers): APIError | null {
  const completion = record(body);
  const choice = record(Array.isArray(completion["choices"]) ? completion["choices"][0] : null);
  const given = completion["error"] ?? choice["error"];
  if (!given) return null;
  const error = typeof given === "object" ? given : { message: JSON.stringify(given) };
  const { code, type, status, metadata } = record(error);
  const own = new Headers(headers);
  for (const [name, value] of Object.entries(record(record(metadata)["headers"]))) {
    // What the provider behind it said, where its own headers do not say it.
    if (/^retry-after(-ms)?$/i.test(name) && !own.has(name)) own.set(name, String(value));
  }
  return APIError.generate(
    statusIn(code) ?? statusIn(status) ?? statusByName(code) ?? statusByName(type) ?? 400,
    { error },
    undefined,
    own,
  );
}

function statusIn(value: unknown): number | null {
  const status = typeof value === "string" && /^\d{3}$/.test(value) ? Number(value) : value;
  return typeof status === "number" && status >= 400 && status < 600 ? status : null;
}

function statusByName(value: unknown): number | null {
  if (typeof value !== "string") return null;
  if (/rate_?limit|too_many_requests/i.test(value)) return 429;
  if (/overloaded|unavailable/i.test(value)) return 503;
  if (/server_error|internal_error|api_error/i.test(value)) return 500;
  return /authentication|invalid_api_key/i.test(value) ? 401 : null;
}

/** Where the connection was never made, nothing was sent. */
const neverSent = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENETUNREACH",
  "EHOSTUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/**
 * Whether a failed attempt may appear on the bill: it broke off after it was sent, a gateway gave up
 * on it, or the provider failed after it had begun to answer.
 */
export function mayBeBilled(error: unknown, answered: boolean): boolean {
  if (error instanceof APIError && error.status !== undefined) {
    const { status } = error;
    return status === 408 || status === 504 || status === 524 || (answered && status >= 500);
  }
  if (answered || error instanceof SyntaxError) return true;
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (neverSent.has(String((cause as { code?: unknown }).code))) return false;
  }
  return true;
}

export function refusesFormat(error: unknown): boolean {
  if (!JudgeError.isInstance(error) || (error.status !== 400 && error.status !== 422)) return false;
  return /response_format|json_schema|json_object|structured output/i.test(error.message);
}

/** fetch hides what happened behind "fetch failed"; the causes say it. */
function rootError(error: unknown): string {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  return current instanceof Error ? current.message : String(current);
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
