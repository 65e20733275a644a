import OpenAI, {
  APIConnectionError,
  APIConnectionTimeoutError,
  APIError,
  APIUserAbortError,
} from "openai";
import { HoneError } from "@hone/core";
import { JudgeError } from "./judge-error.ts";
import type { JudgeFailure } from "./judge-error.ts";
import type { JudgeTarget, StructuredOutput } from "./judge-target.ts";
import type { Lane } from "./lane.ts";
import type { TokenUsage } from "./prices.ts";
import { AttemptFailure, retryAfterMs, throwIfAborted, withRetries } from "./retry.ts";
import type { RetryPlan } from "./retry.ts";

export type JudgeMessage =
  | { role: "system"; content: string }
  | { role: "user"; content: string }
  | { role: "assistant"; content: string };

export interface JudgeReply {
  content: string | null;
  reasoning: string | null;
  refusal: string | null;
  finishReason: string | null;
  /** The model that says it answered. */
  model: string;
  usage: TokenUsage;
  /** What the provider itself says it cost (OpenRouter does). */
  costUsd: number | null;
}

export type Fetch = typeof globalThis.fetch;

export interface CallSettings {
  target: JudgeTarget;
  /** The target's, or that of a rollout on a Hone server. */
  baseURL: string;
  lane: Lane;
  plan: RetryPlan;
  /** Limit of one request. */
  timeoutMs: number;
  structuredOutput: StructuredOutput;
  /** The answer's shape, for a judge that is held to one. */
  schema: Readonly<Record<string, unknown>>;
  parameters: Readonly<Record<string, unknown>>;
  fetch: Fetch;
}

/** One completion of the judge, retried where that can help. */
export async function callJudge(
  messages: readonly JudgeMessage[],
  settings: CallSettings,
): Promise<JudgeReply> {
  const { lane, plan } = settings;
  for (;;) {
    const format = weaker(settings.structuredOutput, lane.structuredOutput);
    try {
      return await withRetries(lane, plan, () => attempt(messages, format, settings));
    } catch (error) {
      // Told once that it has no such output, the judge is asked in plain words from then on.
      const next = format === "json_schema" ? "json_object" : "none";
      if (format === "none" || !refusesFormat(error)) throw error;
      lane.structuredOutput = next;
    }
  }
}

/** Not more than the user wants, nor than the provider has. */
function weaker(wanted: StructuredOutput, had: StructuredOutput | null): StructuredOutput {
  const order = ["none", "json_object", "json_schema"] as const;
  return had !== null && order.indexOf(had) < order.indexOf(wanted) ? had : wanted;
}

async function attempt(
  messages: readonly JudgeMessage[],
  format: StructuredOutput,
  settings: CallSettings,
): Promise<JudgeReply> {
  const { plan, target } = settings;
  throwIfAborted(plan.signal);
  const left = plan.deadline - performance.now();
  const timeout = Math.max(1, Math.min(settings.timeoutMs, Math.ceil(left)));
  try {
    const completion: unknown = await clientOf(settings).chat.completions.create(
      {
        ...settings.parameters,
        model: target.model,
        messages: [...messages],
        stream: false,
        ...responseFormat(format, settings.schema),
      },
      { timeout, maxRetries: 0, ...(plan.signal ? { signal: plan.signal } : {}) },
    );
    return readCompletion(completion);
  } catch (error) {
    throwIfAborted(plan.signal);
    throw failureOf(error, settings, timeout);
  }
}

function clientOf({ target, baseURL, fetch }: CallSettings): OpenAI {
  const origin = new URL(target.baseURL).origin;
  return new OpenAI({
    baseURL,
    apiKey: target.apiKey,
    // The environment's other settings are OpenAI's; they are no business of another provider.
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
    logLevel: "off",
    fetch: async (input, init) => {
      const url = new URL(input instanceof Request ? input.url : input);
      if (url.origin !== origin) throw new Error(`The judge's key does not go to ${url.origin}.`);
      const headers = new Headers();
      for (const name of ["accept", "content-type"]) {
        const value = new Headers(init?.headers).get(name);
        if (value) headers.set(name, value);
      }
      headers.set("authorization", `Bearer ${target.apiKey}`);
      // A redirect would carry the key to a place that nobody named.
      return await fetch(input, { ...init, headers, redirect: "error" });
    },
  });
}

function responseFormat(
  format: StructuredOutput,
  schema: CallSettings["schema"],
): {
  response_format?: OpenAI.ResponseFormatJSONObject | OpenAI.ResponseFormatJSONSchema;
} {
  if (format === "none") return {};
  if (format === "json_object") return { response_format: { type: "json_object" } };
  return {
    response_format: {
      type: "json_schema",
      json_schema: { name: "scores", strict: true, schema: { ...schema } },
    },
  };
}

/** Only what is there: providers differ in all but the first choice's message. */
function readCompletion(value: unknown): JudgeReply {
  const completion = record(value);
  const choice = record(array(completion["choices"])[0]);
  const message = record(choice["message"]);
  const usage = record(completion["usage"]);
  const details = record(usage["prompt_tokens_details"]);
  if (!completion["choices"]) {
    throw new JudgeError(
      "The judge's server answered with something that is no chat completion. Is its baseURL right?",
      {
        failure: "provider_error",
      },
    );
  }
  return {
    content: text(message["content"]),
    reasoning: text(message["reasoning_content"]) ?? text(message["reasoning"]),
    refusal: text(message["refusal"]),
    finishReason: text(choice["finish_reason"]),
    model: text(completion["model"]) ?? "",
    usage: {
      promptTokens: count(usage["prompt_tokens"]),
      cachedTokens: count(details["cached_tokens"] ?? usage["prompt_cache_hit_tokens"]),
      completionTokens: count(usage["completion_tokens"]),
    },
    costUsd: typeof usage["cost"] === "number" && usage["cost"] >= 0 ? usage["cost"] : null,
  };
}

const noRetry = new Set([
  "insufficient_quota",
  "billing_hard_limit_reached",
  "billing_not_active",
  "insufficient_balance",
  "credit_balance_too_low",
]);

function failureOf(error: unknown, settings: CallSettings, timeoutMs: number): unknown {
  const { target } = settings;
  if (HoneError.isInstance(error)) return error;
  const fail = (
    failure: JudgeFailure,
    message: string,
    retry: { retryable: boolean; retryAfterMs?: number | null } = { retryable: false },
    status?: number,
  ): AttemptFailure =>
    new AttemptFailure(
      new JudgeError(message.replaceAll(target.apiKey, "[key]"), { failure, cause: error, status }),
      { retryable: retry.retryable, retryAfterMs: retry.retryAfterMs ?? null },
    );
  if (error instanceof APIUserAbortError || error instanceof APIConnectionTimeoutError) {
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
      `${target.label} could not be reached at ${settings.baseURL} (${rootMessage(error)}).`,
      { retryable: true },
    );
  }
  const { status, code, type, message } = error as {
    status?: number;
    code?: unknown;
    type?: unknown;
    message: string;
  };
  const said = `${target.label} answered ${status ?? "an error"}: ${message.slice(0, 500)}`;
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
  const advice = headers?.get("x-should-retry");
  const retryable =
    advice === "true" ||
    (advice !== "false" &&
      (status === undefined ||
        status === 408 ||
        status === 409 ||
        status === 429 ||
        status >= 500));
  return fail(
    status === 429 ? "rate_limited" : "provider_error",
    said,
    { retryable, retryAfterMs: retryAfterMs(headers) },
    status,
  );
}

function refusesFormat(error: unknown): boolean {
  if (!JudgeError.isInstance(error) || (error.status !== 400 && error.status !== 422)) return false;
  return /response_format|json_schema|json_object|structured output/i.test(error.message);
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function array(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function count(value: unknown): number {
  return typeof value === "number" && value >= 0 ? value : 0;
}

/** fetch hides what happened behind "fetch failed"; the causes say it. */
function rootMessage(error: unknown): string {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  return current instanceof Error ? current.message : String(current);
}
