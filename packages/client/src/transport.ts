import { HoneError, isErrorCode, issueText, longestTimerMs, patientRequest } from "@hone/core";
import type { ErrorCode } from "@hone/core";
import { setTimeout as sleep } from "node:timers/promises";
import type { ConnectionSettings } from "./connection-settings.ts";
import { errorWithoutKey } from "./error-without-key.ts";

/** The part of a zod schema that reading a response needs. */
export interface ResponseSchema<T> {
  safeParse(
    value: unknown,
  ): { success: true; data: T } | { success: false; error: Parameters<typeof issueText>[0] };
}

export interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string> | undefined;
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
  maxRetries?: number | undefined;
}

export type Method = "GET" | "POST" | "PUT" | "PATCH";

/**
 * Requests to the training plane. Each one may be sent again after a failure: those that create
 * something carry an id or a token that the client chose, so that a second copy creates nothing.
 */
export class Transport {
  readonly settings: ConnectionSettings;

  constructor(settings: ConnectionSettings) {
    this.settings = settings;
  }

  /** Sends a request and reads its JSON answer. */
  async json<T>(
    method: Method,
    path: string,
    schema: ResponseSchema<T>,
    options: RequestOptions = {},
  ): Promise<T> {
    const text = await this.#attempts(method, path, options, async (signal) => {
      const response = await this.#send(method, path, options, signal);
      return await response.text();
    });
    return readAs(text, schema, `${method} ${path}`);
  }

  /** Opens a stream. One attempt: who follows a stream knows from where to go on. */
  async open(method: Method, path: string, options: RequestOptions = {}): Promise<Response> {
    try {
      return await this.#send(method, path, options, options.signal);
    } catch (error) {
      const shown = errorWithoutKey(error, this.settings.apiKey);
      throw asHoneError(shown, options.signal, `${method} ${path}`);
    }
  }

  async #attempts<T>(
    method: Method,
    path: string,
    options: RequestOptions,
    attempt: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const maxRetries = options.maxRetries ?? this.settings.maxRetries;
    const timeoutMs = options.timeoutMs ?? this.settings.timeoutMs;
    for (let retry = 0; ; retry += 1) {
      throwIfAborted(options.signal);
      const limit = AbortSignal.timeout(Math.min(timeoutMs, longestTimerMs));
      const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
      try {
        return await attempt(signal);
      } catch (cause) {
        const shown = errorWithoutKey(cause, this.settings.apiKey);
        const error = asHoneError(shown, options.signal, `${method} ${path}`, timeoutMs);
        if (retry >= maxRetries || !isRetryable(error)) throw error;
        await pause(error.retryAfterMs ?? backoffMs(retry), options.signal);
      }
    }
  }

  async #send(
    method: Method,
    path: string,
    options: RequestOptions,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const hasBody = options.body !== undefined;
    const response = await this.settings.fetch(
      this.settings.serverURL + path,
      patientRequest<RequestInit>({
        method,
        headers: {
          authorization: `Bearer ${this.settings.apiKey}`,
          accept: "application/json",
          ...(hasBody ? { "content-type": "application/json" } : {}),
          ...options.headers,
        },
        // A redirect would carry the key to a place that the user did not name.
        redirect: "error",
        ...(hasBody ? { body: writeBody(options.body, `${method} ${path}`) } : {}),
        ...(signal ? { signal } : {}),
      }),
    );
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

/** A circle or a BigInt in what the user gave is no lost connection: no second attempt would pass. */
function writeBody(body: unknown, what: string): string {
  try {
    return JSON.stringify(body);
  } catch (cause) {
    throw new HoneError(`${what} was given what JSON cannot hold: ${rootMessage(cause)}`, {
      code: "invalid_request",
      cause,
    });
  }
}

/** What the response said about retrying; errors are shared, so it is kept beside them. */
const retryAdvice = new WeakMap<HoneError, boolean>();

/** `x-should-retry` decides; without it 408, 429, 5xx and lost connections are tried again. */
export function isRetryable(error: HoneError): boolean {
  const advice = retryAdvice.get(error);
  if (advice !== undefined) return advice;
  if (error.code === "connection_failed" || error.code === "timeout") return true;
  return error.status === 408 || error.status === 429 || error.status >= 500;
}

/** 0.5 s doubled each time, at most 8 s, less up to a quarter so that clients spread out. */
export function backoffMs(retry: number, random: () => number = Math.random): number {
  return Math.min(500 * 2 ** retry, 8000) * (1 - 0.25 * random());
}

export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    throw asHoneError(error, signal, "waiting");
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** The reason of a signal as a HoneError; a reason that is one already (a timeout) is kept. */
export function abortError(signal: AbortSignal): HoneError {
  const reason: unknown = signal.reason;
  if (HoneError.isInstance(reason)) return reason;
  return new HoneError("Aborted by the caller's signal.", { code: "aborted", cause: reason });
}

export function readAs<T>(text: string, schema: ResponseSchema<T>, what: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoneError(`${what} answered with something that is not JSON. Is it a Hone server?`, {
      code: "invalid_response",
      cause,
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new HoneError(
    `${what} answered with an unexpected shape: ${issueText(parsed.error, "the answer")}. Use the same version of client and server.`,
    { code: "invalid_response", cause: parsed.error },
  );
}

async function errorOf(response: Response): Promise<HoneError> {
  const body = envelopeOf(await response.text().catch(() => ""));
  const code = isErrorCode(body.code) ? body.code : codeOfStatus(response.status);
  const error = new HoneError(
    body.message ?? `The server answered ${response.status} ${response.statusText}`.trim(),
    {
      code,
      status: response.status,
      param: body.param,
      retryAfterMs: retryAfterMs(response.headers),
    },
  );
  const advice = response.headers.get("x-should-retry");
  if (advice === "true" || advice === "false") retryAdvice.set(error, advice === "true");
  return error;
}

function envelopeOf(text: string): {
  message?: string | undefined;
  code?: unknown;
  param?: string | undefined;
} {
  try {
    const { error } = JSON.parse(text) as {
      error: { message?: unknown; code?: unknown; param?: unknown };
    };
    return {
      message: typeof error.message === "string" ? error.message : undefined,
      code: error.code,
      param: typeof error.param === "string" ? error.param : undefined,
    };
  } catch {
    // A proxy's page, or nothing: the status has to do.
    return {};
  }
}

function codeOfStatus(status: number): ErrorCode {
  if (status === 401) return "invalid_api_key";
  if (status === 404) return "not_found";
  if (status === 429) return "too_many_requests";
  return status >= 500 ? "internal_error" : "invalid_request";
}

/** `retry-after-ms`, then `retry-after` in seconds or as a date; more than a minute is not waited. */
function retryAfterMs(headers: Headers): number | undefined {
  const ms = Number.parseFloat(headers.get("retry-after-ms") ?? "");
  const text = headers.get("retry-after") ?? "";
  const seconds = Number.parseFloat(text);
  const wait = Number.isFinite(ms)
    ? ms
    : Number.isFinite(seconds)
      ? seconds * 1000
      : Date.parse(text) - Date.now();
  return wait >= 0 && wait <= 60_000 ? wait : undefined;
}

function asHoneError(
  error: unknown,
  signal: AbortSignal | undefined,
  what: string,
  timeoutMs?: number,
): HoneError {
  if (HoneError.isInstance(error)) return error;
  if (signal?.aborted) return abortError(signal);
  if (error instanceof Error && error.name === "TimeoutError") {
    return new HoneError(
      `${what} got no answer within ${timeoutMs ?? "its"} ms. Raise timeoutMs, or look at the server's log.`,
      { code: "timeout", cause: error },
    );
  }
  return new HoneError(
    `${what} could not reach the server (${rootMessage(error)}). Is it running, and is the URL right?`,
    { code: "connection_failed", cause: error },
  );
}

/** fetch hides what happened behind "fetch failed"; the cause says it. */
function rootMessage(error: unknown): string {
  const cause = (error as { cause?: unknown } | null)?.cause;
  if (cause instanceof Error && cause.message) return cause.message;
  return error instanceof Error ? error.message : String(error);
}
