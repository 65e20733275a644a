export {
  abortError,
  longestTimerMs,
  pause,
  throwIfAborted,
  TimeLimitReached,
  unlessAborted,
  withinLimit,
} from "./abort.ts";
export type { ConnectionSettings, Fetch } from "./connection-settings.ts";
export { endedBy } from "./ended-by.ts";
export { errorWithoutKey } from "./error-without-key.ts";
export { followOperation } from "./follow-operation.ts";
export type { FollowOptions } from "./follow-operation.ts";
export { patientRequest } from "./patient-request.ts";
export { backoffMs, isRetryable, mayPass, retryAdvice, retryAfterMs } from "./retry.ts";
export { findServer } from "./server-key.ts";
export type { Announced, FoundServer, ServerSources, Wording } from "./server-key.ts";
export { ServerWait } from "./server-wait.ts";
export type { ServerWaitOptions } from "./server-wait.ts";
export { originOf, requireURL, serverURLOf } from "./server-url.ts";
export { Transport } from "./transport.ts";
export type { Method, RequestOptions, ResponseSchema } from "./transport.ts";
