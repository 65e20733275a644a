import { endedBy, errorWithoutKey, originOf, patientRequest } from "@hone/transport";
import type { ConnectionSettings, Fetch } from "@hone/transport";
import { asksForModel, choicesOf, readCall, urlOf, withoutKey } from "../request-call.ts";
import type { Call } from "../request-call.ts";
import { sendWhenFree } from "./busy-server.ts";
import { currentRollout, openRollout } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";
import { mismatch, refusal, refuseLate, strayCall } from "./rollout-mismatch.ts";

/**
 * A fetch for clients that outlive a rollout. A call that samples from this model belongs to the rollout in which
 * it is made. The key goes to the server's origin and nowhere else.
 */
export function createContextFetch(settings: ConnectionSettings): Fetch {
  return createFetch(settings, null);
}

/**
 * The fetch of one rollout's own connection. A call that samples belongs to that rollout, and is refused if it is
 * made in another. It counts the calls, and ends those under way when the rollout ends.
 */
export function createRolloutFetch(settings: ConnectionSettings, context: RolloutContext): Fetch {
  return createFetch(settings, context);
}

function createFetch(settings: ConnectionSettings, owner: RolloutContext | null): Fetch {
  const server = new URL(settings.serverURL);
  const prefix = server.pathname.replace(/\/+$/, "");
  return async (input, init) => {
    const url = urlOf(input);
    const path = url.pathname.replace(/\/{2,}/g, "/");
    if (originOf(url.href) !== originOf(server.href) || !path.startsWith(`${prefix}/`)) {
      return await settings.fetch(input, withoutKey(settings, input, init));
    }
    const ownPath = path.slice(prefix.length);
    const call = await readCall(settings, input, init);
    const target = call.method === "POST" ? samplingTarget(ownPath) : null;
    const context = owner ?? ofServer(currentRollout(), settings);
    const named = target?.rollout ?? null;
    if (target && context && (isOwn(owner, named) || asksForModel(call, context.model))) {
      const error = owner && mismatch(owner);
      if (error) return await refusal(error, context);
      return await sendInRollout(settings, context, `${target.route}${url.search}`, call);
    }
    const other = named !== null && named !== context?.rolloutId ? openRollout(named) : undefined;
    const stray = other && strayCall(other);
    if (stray) return await refusal(stray, other);
    // Not as it was written: the key goes to the server that the user named.
    const send = async () =>
      await settings.fetch(`${settings.serverURL}${ownPath}${url.search}`, call);
    return target && context ? await sendBeside(context, call.signal, send) : await send();
  };
}

/**
 * Sends a call to another model of the server. It is none of the rollout's, which may suffer from its fate all the same.
 */
export async function sendBeside(
  context: RolloutContext,
  signal: AbortSignal | null | undefined,
  send: () => Promise<Response>,
): Promise<Response> {
  try {
    const response = await send();
    if (!response.ok && !context.signal.aborted) context.calls.refuse(response.status);
    // Its reader may belong to more than this rollout: only its own signal ends it.
    return watched(response, context, { own: signal, cut: signal });
  } catch (error) {
    if (!context.signal.aborted) context.calls.lose(signal?.aborted ?? false);
    throw error;
  }
}

/** Whether the call goes to the owner's own base URL. Then it is the owner's, whichever model it names. */
function isOwn(owner: RolloutContext | null, named: string | null): boolean {
  return owner !== null && owner.rolloutId === named;
}

function ofServer(
  context: RolloutContext | undefined,
  settings: ConnectionSettings,
): RolloutContext | null {
  return context?.baseURL.startsWith(`${settings.serverURL}/`) ? context : null;
}

/** Routes that do not sample. Any other counts as sampling: to record a call too many is better than to lose one. */
const trainingPlane = new Set([
  ...["rollouts", "batch", "models", "states", "operations"],
  ...["score", "reward-models", "gc", "keys"],
]);

/** A route of Anthropic's API that goes with the sampling ones and has no answer of the model. */
const countsTokens = /^messages\/count_tokens(\?|$)/;

/** The route below `/v1/`, and the rollout if the URL is a rollout's. Null for a route that does not sample. */
function samplingTarget(path: string): { rollout: string | null; route: string } | null {
  const [, rollout, below] = /^\/v1\/rollouts\/([^/]+)\/v1\/(.+)$/.exec(path) ?? [];
  if (rollout !== undefined && below !== undefined) {
    return { rollout: decoded(rollout), route: below };
  }
  const [, route, first] = /^\/v1\/(([^/]+).*)$/.exec(path) ?? [];
  if (route === undefined || first === undefined || trainingPlane.has(first)) return null;
  return { rollout: null, route };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function sendInRollout(
  settings: ConnectionSettings,
  context: RolloutContext,
  route: string,
  call: Call,
): Promise<Response> {
  if (context.signal.aborted) return await refuseLate(context);
  const end = context.calls.begin(countsTokens.test(route) ? 0 : choicesOf(call));
  const signal = call.signal ? AbortSignal.any([call.signal, context.signal]) : context.signal;
  try {
    const url = `${context.baseURL}/${route}`;
    const response = await sendWhenFree(settings, { ...call, signal }, (sent) =>
      settings.fetch(url, patientRequest(sent)),
    );
    if (!response.ok) context.calls.refuse(response.status);
    return watched(response, context, { own: call.signal, cut: signal }, end);
  } catch (error) {
    // A call that the rollout's end cuts stays open: it is the one that the exception names.
    if (!context.signal.aborted) {
      context.calls.lose(call.signal?.aborted ?? false);
      end();
    } else if (!call.signal?.aborted) return await refuseLate(context);
    throw errorWithoutKey(error, settings.apiKey);
  }
}

type Signal = AbortSignal | null | undefined;

/**
 * The same response. `end` is called after a stream's last byte, because the call is under way until then. `own`: the
 * caller's signal; `cut`: the one that ends a stream.
 */
function watched(
  response: Response,
  { signal: ending, calls }: RolloutContext,
  { own, cut }: { own: Signal; cut: Signal },
  end: () => void = () => {},
): Response {
  const streams = response.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
  const given = streams ? (cut ? endedBy(cut, response) : response).body : null;
  if (!given) {
    // An answer in one piece is over where it begins.
    end();
    return response;
  }
  const reader = given.getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const part = await reader.read();
        if (!part.done) {
          controller.enqueue(part.value);
          return;
        }
        end();
        controller.close();
      } catch (error) {
        if (!ending.aborted) {
          calls.lose(own?.aborted ?? false);
          end();
        }
        controller.error(error);
      }
    },
    async cancel(reason) {
      end();
      await reader.cancel(reason);
    },
  });
  return new Response(body, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
}
