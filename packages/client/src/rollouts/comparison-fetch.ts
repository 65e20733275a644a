import type { Fetch } from "@hone/transport";
import { currentRollout } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";
import { mismatch, refusal, refuseLate, strayCall } from "./rollout-mismatch.ts";

/** The fetches of a rollout on another API. No server keeps rollouts apart there, so these fetches do it. */
export function comparisonFetches(context: RolloutContext & { record: Fetch }): {
  /** For the rollout's own connection. A call from another rollout is refused. */
  own: Fetch;
  /** For clients made at module level. A call is recorded under the rollout that it is made in. */
  following: Fetch;
} {
  return {
    async own(input, init) {
      const error = mismatch(context);
      return error
        ? await refusal(error, context)
        : await send(context, context.record, input, init);
    },
    async following(input, init) {
      const running = currentRollout();
      if (running?.record && running.baseURL === context.baseURL) {
        return await send(running, running.record, input, init);
      }
      const stray = context.signal.aborted ? null : strayCall(context);
      return stray ? await refusal(stray, context) : await refuseLate(context);
    },
  };
}

async function send(
  context: RolloutContext,
  record: Fetch,
  ...[input, init]: Parameters<Fetch>
): Promise<Response> {
  if (context.signal.aborted) return await refuseLate(context);
  try {
    return await record(input, init);
  } catch (error) {
    if (context.signal.aborted && !init?.signal?.aborted) return await refuseLate(context);
    throw error;
  }
}
