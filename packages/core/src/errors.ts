/** Every error code of Hone's wire, with the HTTP status and OpenAI error type that carry it. */
export const errorCodes = {
  invalid_json: { status: 400, type: "invalid_request_error" },
  invalid_request: { status: 400, type: "invalid_request_error" },
  unsupported_parameter: { status: 400, type: "invalid_request_error" },
  context_length_exceeded: { status: 400, type: "invalid_request_error" },
  invalid_reward: { status: 400, type: "invalid_request_error" },
  previous_response_not_found: { status: 400, type: "invalid_request_error" },
  eval_rollout: { status: 400, type: "invalid_request_error" },
  invalid_api_key: { status: 401, type: "authentication_error" },
  forbidden_host: { status: 403, type: "permission_error" },
  forbidden_origin: { status: 403, type: "permission_error" },
  not_found: { status: 404, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "invalid_request_error" },
  rollout_not_found: { status: 404, type: "invalid_request_error" },
  operation_not_found: { status: 404, type: "invalid_request_error" },
  policy_not_found: { status: 404, type: "invalid_request_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  base_mismatch: { status: 409, type: "conflict_error" },
  model_mismatch: { status: 409, type: "conflict_error" },
  model_busy: { status: 409, type: "conflict_error" },
  model_deleted: { status: 409, type: "conflict_error" },
  step_mismatch: { status: 409, type: "conflict_error" },
  no_gradient: { status: 409, type: "conflict_error" },
  already_trained: { status: 409, type: "conflict_error" },
  rollout_closed: { status: 409, type: "conflict_error" },
  rollout_open: { status: 409, type: "conflict_error" },
  rollout_exists: { status: 409, type: "conflict_error" },
  body_too_large: { status: 413, type: "invalid_request_error" },
  unsupported_media_type: { status: 415, type: "invalid_request_error" },
  client_token_reused: { status: 422, type: "invalid_request_error" },
  bad_adapter: { status: 422, type: "invalid_request_error" },
  too_many_requests: { status: 429, type: "rate_limit_error" },
  engine_busy: { status: 429, type: "rate_limit_error" },
  aborted: { status: 499, type: "aborted_error" },
  internal_error: { status: 500, type: "server_error" },
  train_failed: { status: 500, type: "server_error" },
  publish_failed: { status: 500, type: "server_error" },
  engine_error: { status: 502, type: "server_error" },
  engine_unavailable: { status: 503, type: "server_error" },
  worker_unavailable: { status: 503, type: "server_error" },
  renderer_unavailable: { status: 503, type: "server_error" },
  shutting_down: { status: 503, type: "server_error" },
  disk_full: { status: 507, type: "server_error" },
  // Raised on the client's side only; a status of 0 says that no response carried them.
  connection_failed: { status: 0, type: "connection_error" },
  timeout: { status: 0, type: "timeout_error" },
  too_many_exceptions: { status: 0, type: "rollout_error" },
  rollout_mismatch: { status: 0, type: "rollout_error" },
  nothing_trained: { status: 0, type: "training_error" },
  run_paused: { status: 0, type: "training_error" },
  invalid_config: { status: 0, type: "configuration_error" },
  invalid_response: { status: 0, type: "connection_error" },
  judge_failed: { status: 0, type: "judge_error" },
} as const satisfies Record<string, { status: number; type: string }>;

export type ErrorCode = keyof typeof errorCodes;

const marker = Symbol.for("hone.error");

export interface HoneErrorOptions {
  code: ErrorCode;
  /** The request field that is wrong, as a path: `messages[2].content`. */
  param?: string | undefined;
  cause?: unknown;
  /** Overrides the table's status, for an error that a peer reported. */
  status?: number | undefined;
  /** Milliseconds after which the same request may be sent again. */
  retryAfterMs?: number | undefined;
}

/** The one error class of Hone. `code` tells what happened; `message` tells what to do next. */
export class HoneError extends Error {
  override readonly name = "HoneError";
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly status: number;
  readonly retryAfterMs: number | null;

  constructor(message: string, options: HoneErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = options.code;
    this.param = options.param ?? null;
    this.status = options.status ?? errorCodes[options.code].status;
    this.retryAfterMs = options.retryAfterMs ?? null;
    Object.defineProperty(this, marker, { value: true });
  }

  /** True also for a HoneError of another copy of this package. */
  static isInstance(value: unknown): value is HoneError {
    return typeof value === "object" && value !== null && marker in value;
  }

  /** OpenAI's error envelope. */
  toEnvelope(): ErrorEnvelope {
    return {
      error: {
        message: this.message,
        type: errorCodes[this.code].type,
        code: this.code,
        param: this.param,
      },
    };
  }
}

/** `{error: {message, type, code, param}}`, as OpenAI sends it. */
export interface ErrorEnvelope {
  error: { message: string; type: string; code: string | null; param: string | null };
}

/** Whether a string is one of our codes; codes of other servers are not. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(errorCodes, code);
}
