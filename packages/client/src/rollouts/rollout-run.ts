import { setMaxListeners } from "node:events";
import {
  HoneError,
  newId,
  rolloutInfoSchema,
  type PatchRollout,
  type RolloutException,
  type RolloutInfo,
  type RolloutMode,
} from "@hone/core";
import { abortError, errorWithoutKey, throwIfAborted } from "@hone/transport";
import type { Policy } from "./policy.ts";
import { CallCounter, currentRollout, runInRollout } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";
import { describe, type RolloutEnd, rolloutOver, withCall, withinTime } from "./rollout-end.ts";
import { createRolloutModel, type RolloutModel } from "./rollout-model.ts";
import { readOutcome } from "./rollout-outcome.ts";
import { isOfItsContent, type RolloutRequests } from "./rollout-requests.ts";
import type { RolloutResult } from "./rollout-outcome.ts";
import type { Transport } from "@hone/transport";

/** Which of its gathering's rollouts one is. */
export interface RolloutPlace {
  /** The number of its scenario, from 0. */
  group: number;
  /** Its number among the rollouts of that scenario, from 0. */
  member: number;
  /** How often it has failed before. */
  attempt: number;
}

export type Rollout<Scenario> = (
  model: RolloutModel,
  scenario: Scenario,
  place: RolloutPlace,
) => RolloutResult | Promise<RolloutResult>;

export interface RolloutRunOptions {
  group: string;
  place: RolloutPlace;
  mode: RolloutMode;
  timeoutMs: number;
  signal: AbortSignal;
}

export interface ServedRunOptions extends RolloutRunOptions {
  requests: RolloutRequests;
}

/**
 * One rollout from its creation on the server to its trajectory. If the agent throws, the result has an
 * `exception`. This function itself throws only if every other rollout would fail too (a wrong key, no such model).
 */
export async function runRollout<Scenario>(
  policy: Policy,
  rollout: Rollout<Scenario>,
  scenario: Scenario,
  options: ServedRunOptions,
): Promise<RolloutEnd> {
  const { transport } = policy;
  const parent = currentRollout();
  let info: RolloutInfo;
  try {
    info = await createRollout(policy, scenario, options);
  } catch (error) {
    throwIfAborted(options.signal);
    if (!isPassing(error) && !isOfThisOne(error)) throw error;
    return { exception: describe(error, null, null), error };
  }

  // Not before: it may have waited for the server.
  const outages = transport.wait?.outages;
  const ending = new AbortController();
  const context: RolloutContext = {
    rolloutId: info.id,
    model: policy.name,
    // Not the server's word for it: the key goes to the server that the user named.
    baseURL: `${transport.settings.serverURL}/v1/rollouts/${info.id}/v1`,
    signal: AbortSignal.any([options.signal, ending.signal]),
    // Not by the context's signal, which aborts when the rollout ends.
    calls: new CallCounter(async () => await transport.wait?.untilThere(options.signal)),
    parent,
    fail(error) {
      if (!ending.signal.aborted) ending.abort(error);
    },
  };
  // SDKs add a listener for every call that is given the signal, and a rollout makes many calls.
  setMaxListeners(0, context.signal);
  const stopRenewing = renewLease(transport, info, context.signal, ending);
  try {
    const model = createRolloutModel(transport.settings, info, context);
    const returned = await withinTime(context.signal, ending, options.timeoutMs, () =>
      runInRollout(context, () => rollout(model, scenario, options.place)),
    );
    const { completions, ...outcome } = readOutcome(returned);
    const end = { id: info.id, status: "finished", ...outcome } as const;
    const ended = await options.requests.end(end);
    const trajectory = completions === undefined ? ended : { ...ended, completions };
    return { trajectory, calls: context.calls, outages };
  } catch (thrown) {
    // An SDK wraps the abort in an error of its own; the reason is what the user needs to read.
    const told = context.signal.aborted ? abortError(context.signal) : thrown;
    const error = errorWithoutKey(told, transport.settings.apiKey);
    const duringCall = await callUnderWay(transport, info.id, context, error);
    // Streams that the agent left open end with it.
    if (!ending.signal.aborted) ending.abort(error);
    const exception = describe(withCall(error, duringCall), info.id, duringCall);
    await markFailed(transport, info.id, exception);
    return { exception, error };
  } finally {
    stopRenewing();
    if (!ending.signal.aborted) ending.abort(rolloutOver());
  }
}

async function createRollout(
  { name, step }: Policy,
  scenario: unknown,
  { mode, group, requests }: ServedRunOptions,
): Promise<RolloutInfo> {
  return await requests.create({
    id: newId("ro"),
    model: name,
    mode,
    group,
    ...(step === null ? {} : { step }),
    ...(scenario === undefined ? {} : { scenario }),
  });
}

/** Best effort: a rollout that cannot be marked expires with its lease. */
async function markFailed(
  transport: Transport,
  id: string,
  { type, message }: RolloutException,
): Promise<void> {
  const body: PatchRollout = { status: "failed", error: { type, message } };
  await transport
    .json("PATCH", `/v1/rollouts/${id}`, rolloutInfoSchema, {
      body,
      maxRetries: 1,
      timeoutMs: 5000,
    })
    .catch(() => {});
}

/** Completions renew the lease too, but an agent may work for long without one. */
function renewLease(
  transport: Transport,
  info: RolloutInfo,
  signal: AbortSignal,
  ending: AbortController,
): () => void {
  // A difference of two of the server's times: its clock may be another than ours.
  const leaseMs = (info.leaseExpiresAt ?? info.createdAt + 600_000) - info.createdAt;
  const timer = setInterval(
    () => {
      transport
        .json("PATCH", `/v1/rollouts/${info.id}`, rolloutInfoSchema, { body: {}, signal })
        .catch((error: unknown) => {
          const lost =
            HoneError.isInstance(error) &&
            (error.code === "rollout_closed" || error.code === "rollout_not_found");
          if (lost) ending.abort(error);
        });
    },
    Math.min(Math.max(leaseMs / 3, 100), 300_000),
  );
  timer.unref();
  return () => clearInterval(timer);
}

/** The model call that the rollout is in. Our fetch counts calls; for an agent with another fetch, the server does. */
async function callUnderWay(
  transport: Transport,
  id: string,
  { calls, signal }: RolloutContext,
  error: unknown,
): Promise<number | null> {
  if (calls.started > 0) return calls.current;
  const timedOut = signal.aborted && HoneError.isInstance(error) && error.code === "timeout";
  if (!timedOut) return null;
  try {
    const info = await transport.json("GET", `/v1/rollouts/${id}`, rolloutInfoSchema, {
      maxRetries: 0,
      timeoutMs: 5000,
    });
    return info.completions + 1;
  } catch {
    return null;
  }
}

/** Whether the server refused this rollout's own content. The other scenarios may be fine. */
function isOfThisOne(error: unknown): boolean {
  return HoneError.isInstance(error) && isOfItsContent(error);
}

/** Whether the fault may be gone for the next rollout. */
function isPassing(error: unknown): boolean {
  if (!HoneError.isInstance(error)) return false;
  return error.status === 0 || error.status === 429 || error.status === 408 || error.status >= 500;
}
