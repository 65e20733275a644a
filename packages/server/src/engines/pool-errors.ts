import { HoneError } from "@hone/core";

/** Null for one that does not answer: whoever watches it knows more. */
export function reasonOf(error: unknown): string | null {
  if (!HoneError.isInstance(error)) return "it failed; the server's log says more";
  return error.status === 503 ? null : error.message;
}

/** Why no engine takes requests although each one is up. @param count how many there are */
export function noneServes(count: number): HoneError {
  if (count > 0) {
    return new HoneError(
      "The engine is getting its policies. Send the request again in a moment.",
      { code: "engine_unavailable", retryAfterMs: 1_000 },
    );
  }
  return new HoneError(
    "No engine has joined yet. `hone engines token` makes a token for `hone engine --join`.",
    { code: "engine_unavailable", retryAfterMs: 5_000 },
  );
}

export function lateError(policy: string, deadlineMs: number): HoneError {
  return new HoneError(
    `It was not ready for ${policy} after ${deadlineMs / 1000} s, when another engine was.`,
    { code: "engine_error" },
  );
}

/** Why an adapter can be served by none: the engine's own error, or those of all. */
export function noneReady(policy: string, byEngine: ReadonlyMap<string, unknown>): unknown {
  const failures = [...byEngine].filter(([, error]) => error !== undefined);
  const [first] = failures;
  if (first && failures.length === 1) return first[1];
  const reasons = failures.map(([name, error]) => `${name}: ${(error as Error).message}`);
  return new HoneError(`No engine can serve ${policy}. ${reasons.join(" ")}`.trim(), {
    code: first && HoneError.isInstance(first[1]) ? first[1].code : "engine_unavailable",
    cause: new AggregateError(failures.map(([, error]) => error)),
  });
}
