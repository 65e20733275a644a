import { HoneError } from "@hone/core";

/** Why a judge gave no scores. */
export type JudgeFailure =
  /** Its answer was no valid scoring, even after it was told what was wrong. */
  | "invalid_answer"
  /** Its answer was cut off by its token limit. */
  | "truncated"
  /** It refused to answer. */
  | "refused"
  /** The attempts do not fit into the token budget, even trimmed. */
  | "too_large"
  | "rate_limited"
  | "quota_exhausted"
  | "unauthorized"
  | "timeout"
  | "unreachable"
  | "provider_error"
  /** The budget in money is spent. */
  | "over_budget";

/** A judge that gave no scores. `failure` tells why, `message` what to do next. */
export class JudgeError extends HoneError {
  readonly failure: JudgeFailure;

  constructor(
    message: string,
    options: { failure: JudgeFailure; cause?: unknown; status?: number | undefined },
  ) {
    super(message, { code: "judge_failed", cause: options.cause, status: options.status });
    this.failure = options.failure;
  }

  /** True also for a JudgeError of another copy of this package. */
  static override isInstance(value: unknown): value is JudgeError {
    return HoneError.isInstance(value) && value.code === "judge_failed" && "failure" in value;
  }
}
