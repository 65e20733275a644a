import type { HoneError } from "@hone/core";

/**
 * How long a server wants to be left alone: `retry-after-ms`, else `retry-after` in seconds or as a date. Null
 * where it does not say. @unit ms
 */
export function retryAfterMs(headers: Headers | undefined): number | null {
  const text = headers?.get("retry-after")?.trim() ?? "";
  const given = headers?.get("retry-after-ms")?.trim();
  if (isNumber(given)) return Number(given);
  if (isNumber(text)) return Number(text) * 1000;
  const wait = Date.parse(text) - Date.now();
  return wait >= 0 ? wait : null;
}

function isNumber(text: string | undefined): boolean {
  return text !== undefined && /^\d+(\.\d+)?$/.test(text);
}

/** What `x-should-retry` says; null where it says nothing. */
export function retryAdvice(headers: Headers | undefined): boolean | null {
  const advice = headers?.get("x-should-retry");
  return advice === "true" ? true : advice === "false" ? false : null;
}

/** Errors are shared with whoever catches them: what a response said of its own is kept beside them. */
const adviceOf = new WeakMap<HoneError, boolean>();

export function keepAdvice(error: HoneError, headers: Headers): void {
  const advice = retryAdvice(headers);
  if (advice !== null) adviceOf.set(error, advice);
}

/** Without `x-should-retry`, 408, 429, 5xx and lost connections are tried again. */
export function isRetryable(error: HoneError): boolean {
  const advice = adviceOf.get(error);
  if (advice !== undefined) return advice;
  if (error.code === "connection_failed" || error.code === "timeout") return true;
  return mayPass(error.status);
}

export function mayPass(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** 0.5 s doubled each time, at most 8 s, less up to a quarter so that clients spread out. @unit ms */
export function backoffMs(retry: number, random: () => number = Math.random): number {
  return Math.min(500 * 2 ** retry, 8000) * (1 - 0.25 * random());
}
