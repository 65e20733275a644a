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
 * The error of a call that would be recorded under `owner` and is made in another rollout; null if it is not. The
 * rollout that made the call fails, even if its agent catches the error: otherwise its reward would be given for
 * completions that are recorded elsewhere.
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
 * The error of a call under the base URL of a rollout that the call may not belong to. A client that is made once
 * keeps the URL of the rollout that made it. If it is called outside of every rollout, or for another model, that
 * URL does not say whose call it is.
 */
export function strayCall(owner: RolloutContext): HoneError | null {
  if (currentRollout()) return mismatch(owner);
  return new HoneError(
    `A call to the base URL of the rollout "${owner.rolloutId}" was made by \`model.fetch\` outside of every rollout, so that nobody knows whose it is. ${waysOut}`,
    { code: "rollout_mismatch" },
  );
}

/** So many refusals of one rollout are answered at once. Later ones are delayed. */
const promptRefusals = 10;

/** A 409 with OpenAI's envelope, which no SDK sends again. SDKs would show a thrown error as a "Connection error." */
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

/** The answer to a call that comes after the rollout's end, or that this end cut off. */
export async function refuseLate(context: RolloutContext): Promise<Response> {
  return await refusal(rolloutOver(context.signal.reason), context);
}
