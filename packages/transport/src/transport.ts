import { HoneError, isErrorCode, issueText } from "@hone/core";
import type { ErrorCode } from "@hone/core";
import { abortError, pause, throwIfAborted, withinLimit } from "./abort.ts";
import type { ConnectionSettings } from "./connection-settings.ts";
import { endedBy } from "./ended-by.ts";
import { errorWithoutKey, textWithoutKey } from "./error-without-key.ts";
import { patientRequest } from "./patient-request.ts";
import { backoffMs, isRetryable, keepAdvice, retryAfterMs } from "./retry.ts";
import type { ServerWait } from "./server-wait.ts";

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
  /** Which errors another attempt may pass. @default isRetryable */
  retry?: ((error: HoneError) => boolean) | undefined;
  /** Gets the headers of the answer. */
  onHeaders?: ((headers: Headers) => void) | undefined;
}

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/**
 * Requests to a Hone server. Each one may be sent again after a failure: those that create
 * something carry an id or a token that the client chose, so that a second copy creates nothing.
 */
export class Transport {
  readonly settings: ConnectionSettings;
  /** Where there is one, requests wait for a server that is away, and are sent again when it is back. */
  readonly wait: ServerWait | undefined;

  constructor(settings: ConnectionSettings, wait?: ServerWait) {
    this.settings = settings;
    this.wait = wait;
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
      options.onHeaders?.(response.headers);
      return await response.text();
    });
    return readAs(text, schema, `${method} ${path}`);
  }

  /** Opens a stream. One attempt: who follows a stream knows from where to go on. */
  async open(method: Method, path: string, options: RequestOptions = {}): Promise<Response> {
    try {
      const response = await this.#send(method, path, options, options.signal);
      return options.signal ? endedBy(options.signal, response) : response;
    } catch (error) {
      const shown = asHoneError(error, options.signal, `${method} ${path}`);
      throw errorWithoutKey(shown, this.settings.apiKey);
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
    const retryable = options.retry ?? isRetryable;
    for (let retry = 0; ; retry += 1) {
      throwIfAborted(options.signal);
      try {
        return await withinLimit(timeoutMs, options.signal, attempt);
      } catch (cause) {
        const error = asHoneError(cause, options.signal, `${method} ${path}`, timeoutMs);
        if (mayBeAway(error) && (await this.wait?.untilThere(options.signal))) {
          retry = -1;
          continue;
        }
        if (retry >= maxRetries || !retryable(error)) {
          throw errorWithoutKey(error, this.settings.apiKey);
        }
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
    if (!response.ok) throw await errorOf(response, this.settings.apiKey);
    return response;
  }
}

/** Whether nobody answered, or somebody in the server's place, or the server while it starts. */
function mayBeAway({ code, status }: HoneError): boolean {
  return code === "connection_failed" || (status >= 502 && status <= 504);
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

/** Longer than this no request waits for a server: it is asked again sooner, or the caller hears of it. */
const longestWaitMs = 60_000;

async function errorOf(response: Response, apiKey: string): Promise<HoneError> {
  const text = await response.text().catch(() => "");
  const body = envelopeOf(text);
  const code = isErrorCode(body.code) ? body.code : codeOfStatus(response.status);
  const wait = retryAfterMs(response.headers);
  const status = `The server answered ${response.status} ${response.statusText}`.trim();
  // The key first: one that is cut in two would be recognised no more.
  const said = textWithoutKey(text, apiKey).slice(0, 500);
  const error = new HoneError(body.message ?? (said ? `${status}: ${said}` : status), {
    code,
    status: response.status,
    param: body.param,
    retryAfterMs: wait === null || wait > longestWaitMs ? undefined : wait,
  });
  keepAdvice(error, response.headers);
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
