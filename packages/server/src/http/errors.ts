import { errorCodes, HoneError, type ErrorCode } from "@hone/core";
import type { Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Logger } from "pino";
import { diskFullError } from "../store/files.ts";
import { anthropicError, speaksAnthropic } from "./anthropic-error.ts";
import type { AppEnv } from "./env.ts";

/** How long a client waits before it asks a part that is restarting again, unless the error says. */
const defaultRetryAfterMs = 1_000;
const retryable = new Set([429, 502, 503]);

/**
 * The headers that openai-node and others obey before their own rules: those would send a 409 or a
 * deterministic 500 again.
 */
function retryHeaders(error: HoneError): Record<string, string> {
  if (!retryable.has(error.status)) return { "x-should-retry": "false" };
  const waitMs = Math.max(0, Math.ceil(error.retryAfterMs ?? defaultRetryAfterMs));
  return {
    "x-should-retry": "true",
    "retry-after-ms": String(waitMs),
    "retry-after": String(Math.ceil(waitMs / 1000)),
  };
}

const codeOfStatus: Partial<Record<number, ErrorCode>> = {
  400: "invalid_request",
  401: "invalid_api_key",
  404: "not_found",
  405: "method_not_allowed",
  413: "body_too_large",
  415: "unsupported_media_type",
  429: "too_many_requests",
  503: "shutting_down",
};

/** Makes a HoneError of anything thrown. What was not foreseen is logged, and the client is told nothing of it. */
export function toHoneError(error: unknown, log: Logger, requestId?: string): HoneError {
  if (HoneError.isInstance(error)) return error;
  if (error instanceof HTTPException && error.status < 500) {
    const code = codeOfStatus[error.status] ?? "invalid_request";
    return new HoneError(error.message || `The request was refused (${error.status}).`, {
      code,
      status: error.status,
      cause: error,
    });
  }
  const full = diskFullError(error);
  if (full) return full;
  log.error({ err: error, requestId }, "a request failed in a way that was not foreseen");
  const reference = requestId ? ` as request ${requestId}` : "";
  return new HoneError(`The server failed. Its log has the reason${reference}.`, {
    code: "internal_error",
    cause: error,
  });
}

/** Gives the app its error envelope, its 404 and its 405. */
export function installErrors(app: Hono<AppEnv>, log: Logger): void {
  app.onError((error, c) => sendError(c, toHoneError(error, log, c.get("requestId"))));
  app.notFound((c) => {
    const allowed = methodsOf(app, c.req.path);
    if (allowed.length > 0) {
      c.header("allow", allowed.join(", "));
      const error = `${c.req.method} is not possible here. Use ${allowed.join(" or ")}.`;
      return sendError(c, new HoneError(error, { code: "method_not_allowed" }));
    }
    return sendError(
      c,
      new HoneError(
        `There is no ${c.req.method} ${c.req.path.slice(0, 200)}. ${hintFor(c.req.path)}`,
        {
          code: "not_found",
        },
      ),
    );
  });
}

/** A hint at what the path was meant to be, if that can be told. */
function hintFor(path: string): string {
  const route = path.replace(/^(\/v1\/rollouts\/[^/]+)?(\/v1)+(?=\/)/, "");
  const elsewhere = unserved.find(([what]) => what.test(route));
  if (elsewhere) return elsewhere[1];
  if (path.includes("/v1/v1/")) {
    return "The path has /v1 twice: the base URL ends in /v1, and what follows it does not begin with it.";
  }
  if (inferenceRoutes.has(path)) return `It is at /v1${path}: the base URL ends in /v1.`;
  if (path.startsWith("/v1/")) return "GET /openapi.json lists all routes, /docs shows them.";
  return "Its routes begin with /v1; GET /openapi.json lists them, /docs shows them.";
}

/** What the providers' APIs have besides, and what to do without it. */
const unserved: readonly (readonly [RegExp, string])[] = [
  [
    /^\/messages\/batches(\/|$)/,
    "There are no batches of messages: send each to POST /v1/messages.",
  ],
  [
    /^\/(responses|conversations)\/?/,
    "Answers are not kept: send the items so far as input of POST /v1/responses.",
  ],
  [
    /^\/(files|skills)(\/|$)/,
    "Nothing is kept for requests: send texts in the messages themselves.",
  ],
];

const inferenceRoutes = new Set([
  "/messages",
  "/responses",
  "/chat/completions",
  "/completions",
  "/models",
  "/rollouts",
]);

function sendError(c: Context<AppEnv>, error: HoneError): Response {
  for (const [name, value] of Object.entries(retryHeaders(error))) c.header(name, value);
  if (error.status === 401) c.header("www-authenticate", "Bearer");
  const status = error.status || errorCodes.internal_error.status;
  const body = speaksAnthropic(c)
    ? anthropicError(error, c.get("requestId") ?? null)
    : error.toEnvelope();
  return c.json(body, status as ContentfulStatusCode);
}

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];

function methodsOf(app: Hono<AppEnv>, path: string): string[] {
  return methods.filter((method) =>
    app.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
}
