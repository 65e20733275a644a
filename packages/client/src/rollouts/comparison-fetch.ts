import type { Fetch } from "@hone/transport";
import { currentRollout } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";
import { mismatch, refusal, refuseLate, strayCall } from "./rollout-mismatch.ts";

/** The fetches of a rollout on another API: no server keeps rollouts apart there, so the recorders have to. */
export function comparisonFetches(context: RolloutContext & { record: Fetch }): {
  /** Of its connection: refused in another rollout. */
  own: Fetch;
  /** For clients made at module level: recorded in the rollout that it is called in. */
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
