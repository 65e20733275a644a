import { newId, rolloutInfoSchema } from "@hone/core";
import type { PatchRollout } from "@hone/core";
import type { Fetch } from "./judge-call.ts";
import { JudgeError } from "./judge-error.ts";
import type { JudgeTarget } from "./judge-target.ts";
import type { Lane } from "./lane.ts";
import { redactError, redactText } from "./redact.ts";
import { AttemptFailure, retryAfterMs, throwIfAborted, withRetries } from "./retry.ts";
import type { RetryPlan } from "./retry.ts";
import { TimeLimitReached, withinLimit } from "./time-limit.ts";

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
  const { fetch, plan, lane, timeoutMs } = context;
  const send = async (
    method: string,
    path: string,
    body: unknown,
    abort: AbortSignal | undefined,
    limitMs: number,
  ): Promise<unknown> => {
    throwIfAborted(abort);
    let response: Response;
    let text: string;
    try {
      [response, text] = await withinLimit(limitMs, abort, async (signal) => {
        const answered = await fetch(serverURL + path, {
          method,
          headers: {
            authorization: `Bearer ${target.apiKey}`,
            "content-type": "application/json",
            accept: "application/json",
          },
          body: JSON.stringify(body),
          redirect: "error",
          signal,
        });
        return [answered, await answered.text()] as const;
      });
      if (response.ok) return JSON.parse(text) as unknown;
    } catch (cause) {
      throwIfAborted(abort);
      throw new AttemptFailure(
        new JudgeError(
          `The Hone server at ${serverURL} could not be reached for ${target.label}.`,
          {
            failure: cause instanceof TimeLimitReached ? "timeout" : "unreachable",
            cause: redactError(cause, target.secrets),
          },
        ),
        { retryable: true, retryAfterMs: null },
      );
    }
    const said = redactText(text, target.secrets).slice(0, 500);
    throw new AttemptFailure(
      new JudgeError(`${target.label}: the Hone server answered ${response.status}: ${said}`, {
        failure: response.status === 401 ? "unauthorized" : "provider_error",
        status: response.status,
      }),
      {
        retryable: response.status === 429 || response.status >= 500,
        retryAfterMs: retryAfterMs(response.headers),
      },
    );
  };
  // The id is chosen here: a request that is sent again makes no second rollout.
  const id = newId("ro");
  const made = await withRetries(lane, plan, () =>
    send(
      "POST",
      "/v1/rollouts",
      {
        id,
        model,
        ...(step === null ? {} : { step }),
        group: `${groupId}-judge`.slice(0, 128),
        scenario: { judges: groupId },
      },
      plan.signal,
      timeoutMs,
    ),
  );
  if (!rolloutInfoSchema.safeParse(made).success) {
    throw new JudgeError(
      `The Hone server at ${serverURL} made no rollout for ${target.label}. Use the same version of server and ruler.`,
      { failure: "provider_error" },
    );
  }
  return {
    id,
    // By the URL that we were given: what the server calls itself may not be reachable from here.
    baseURL: `${serverURL}/v1/rollouts/${id}/v1`,
    async end(patch) {
      // Also after an abort: the server need not wait for the lease to run out.
      await send("PATCH", `/v1/rollouts/${id}`, patch, undefined, 5000).catch(() => undefined);
    },
  };
}
