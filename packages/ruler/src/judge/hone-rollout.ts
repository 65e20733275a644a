import { HoneError, newId, rolloutInfoSchema } from "@hone/core";
import type { PatchRollout } from "@hone/core";
import { isRetryable, throwIfAborted, Transport } from "@hone/transport";
import type { Fetch } from "@hone/transport";
import { JudgeError } from "./judge-error.ts";
import type { JudgeFailure } from "./judge-error.ts";
import type { JudgeTarget } from "./judge-target.ts";
import type { Lane } from "./lane.ts";
import { redactError, redactText } from "./redact.ts";
import { AttemptFailure, withRetries } from "./retry.ts";
import type { RetryPlan } from "./retry.ts";

export interface JudgeRollout {
  id: string;
  baseURL: string;
  /** Tells the server how it ended. Best effort: silence would end it too, when its lease runs out. */
  end(patch: PatchRollout): Promise<void>;
}

/**
 * A judge on a Hone server is sampled in a rollout of its own, so that its answer can be trained on.
 */
export async function openJudgeRollout(
  target: JudgeTarget & { hone: NonNullable<JudgeTarget["hone"]> },
  groupId: string,
  context: { lane: Lane; plan: RetryPlan; fetch: Fetch; timeoutMs: number },
): Promise<JudgeRollout> {
  const { serverURL, model, step } = target.hone;
  const { plan, lane, fetch, timeoutMs } = context;
  const { apiKey } = target;
  // Sent again by the lane, which all calls to the judge share.
  const server = new Transport({ serverURL, apiKey, fetch, maxRetries: 0, timeoutMs });
  // The id is chosen here: a request that is sent again makes no second rollout.
  const id = newId("ro");
  const body = {
    id,
    model,
    ...(step === null ? {} : { step }),
    group: `${groupId}-judge`.slice(0, 128),
    scenario: { judges: groupId },
  };
  await withRetries(lane, plan, async () => {
    const { signal } = plan;
    try {
      await server.json("POST", "/v1/rollouts", rolloutInfoSchema, { body, signal });
    } catch (error) {
      throwIfAborted(signal);
      throw HoneError.isInstance(error) ? failureOf(error, target) : error;
    }
  });
  return {
    id,
    // By the URL that we were given: what the server calls itself may not be reachable from here.
    baseURL: `${serverURL}/v1/rollouts/${id}/v1`,
    async end(patch) {
      // Also after an abort: the server need not wait for the lease to run out.
      const ended = { body: patch, timeoutMs: 5000 };
      await server
        .json("PATCH", `/v1/rollouts/${id}`, rolloutInfoSchema, ended)
        .catch(() => undefined);
    },
  };
}

function failureOf(error: HoneError, { label, hone, secrets }: JudgeTarget): AttemptFailure {
  const { status, code } = error;
  const [failure, message]: [JudgeFailure, string] =
    code === "timeout" || code === "connection_failed"
      ? [
          code === "timeout" ? "timeout" : "unreachable",
          `The Hone server at ${hone?.serverURL} could not be reached for ${label}.`,
        ]
      : [
          status === 401 ? "unauthorized" : "provider_error",
          `${label}: the Hone server made no rollout. ${redactText(error.message, secrets)}`,
        ];
  return new AttemptFailure(
    new JudgeError(message, { failure, status, cause: redactError(error, secrets) }),
    { retryable: isRetryable(error), retryAfterMs: error.retryAfterMs },
  );
}
