import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { currentRollout, isWithin } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";
import { rolloutOver } from "./rollout-end.ts";

const waysOut =
  "Make the client within the rollout that calls it, `new OpenAI(model.connection())`; or give a client that is made once " +
  "`fetch: model.fetch`, which follows the rollout that it is called in. " +
  "(A queue or pool that several rollouts share has to keep their context: `AsyncResource.bind(job)`.)";

/**
 * What is wrong with a call that would be recorded under `owner`: it is made in another rollout. That one ends
 * with the error, whatever its agent makes of the refusal: its reward would be for completions it did not get.
 */
export function mismatch(owner: RolloutContext): HoneError | null {
  const running = currentRollout();
  if (!running || isWithin(running, owner)) return null;
  const error = new HoneError(
    `A client that was made in the rollout "${owner.rolloutId}" was called in the rollout "${running.rolloutId}": ` +
      `its completions would be recorded under the wrong one. ${waysOut}`,
    { code: "rollout_mismatch" },
  );
  running.fail(error);
  return error;
}

/**
 * A client of module level carries the base URL of whichever rollout made it first: where it is called outside of
 * all rollouts, or for another model than the rollout's, that URL says nothing of whose call it is.
 */
export function strayCall(owner: RolloutContext): HoneError | null {
  if (currentRollout()) return mismatch(owner);
  return new HoneError(
    `A call to the base URL of the rollout "${owner.rolloutId}" was made by \`model.fetch\` outside of every rollout, so that nobody knows whose it is. ${waysOut}`,
    { code: "rollout_mismatch" },
  );
}

/** Refusals of one rollout that are given at once. */
const promptRefusals = 10;

/** In OpenAI's envelope, and so that no SDK sends it again: thrown, it would be a "Connection error." */
export async function refusal(error: HoneError, { calls }: RolloutContext): Promise<Response> {
  calls.refused += 1;
  // An agent that asks on, whatever it is answered, and is left behind must not hold the event loop.
  if (calls.refused <= promptRefusals) await setImmediate();
  else await sleep(1_000, undefined, { ref: false });
  return new Response(JSON.stringify(error.toEnvelope()), {
    status: 409,
    headers: { "content-type": "application/json", "x-should-retry": "false" },
  });
}

/** A call after the rollout's end, or one that its end cut. */
export async function refuseLate(context: RolloutContext): Promise<Response> {
  return await refusal(rolloutOver(context.signal.reason), context);
}
