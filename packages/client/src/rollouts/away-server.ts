import { setMaxListeners } from "node:events";
import { HoneError } from "@hone/core";
import { throwIfAborted, type ServerWait } from "@hone/transport";
import { describe, type RolloutEnd } from "./rollout-end.ts";

/** A rollout that the server's absence cuts off more often counts as failed: it may be what ends the server. */
const mostCuts = 3;

/**
 * Plays a rollout, and plays it anew if the server was away meanwhile and it may have suffered from that: it failed, or
 * its agent may have taken a lost call for an answer and rewarded that.
 */
export async function playUncut(
  wait: ServerWait | undefined,
  signal: AbortSignal,
  play: () => Promise<RolloutEnd>,
): Promise<RolloutEnd> {
  if (!wait) return await play();
  // Each rollout of a gathering listens to it in its wait.
  setMaxListeners(0, signal);
  for (let cuts = 0; ; cuts += 1) {
    const before = wait.outages;
    const end = await play();
    if (end.exception) {
      throwIfAborted(signal);
      await wait.untilThere(signal);
    } else await end.calls.asked;
    const isWhole = wait.outages === before || isUnharmed(end, wait);
    if (end.trajectory && isWhole) wait.progressed();
    if (isWhole) return end;
    if (cuts === mostCuts) return cutOff(end);
  }
}

/**
 * Of an agent whose calls nobody saw nothing is known. A server that is killed may lose the last answers, or that they
 * were delivered: the agent has had them, and they would not train.
 */
function isUnharmed(end: RolloutEnd, wait: ServerWait): boolean {
  if (!end.trajectory) return false;
  const { calls, outages, trajectory } = end;
  if (outages === wait.outages) return true;
  const isKept = trajectory.usage.completions >= calls.choices;
  return calls.started > 0 && !calls.lost && calls.refusal === null && isKept;
}

function cutOff(end: RolloutEnd): RolloutEnd {
  if (!end.trajectory) return end;
  const error = new HoneError(
    `The server went away in each of ${mostCuts + 1} attempts at this rollout: see in its log whether the rollout ends it.`,
    { code: "connection_failed" },
  );
  return { exception: describe(error, end.trajectory.rolloutId, null), error };
}
