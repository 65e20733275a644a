import { AsyncLocalStorage } from "node:async_hooks";
import { parseModelRef } from "@hone/core";
import type { ConnectionSettings, Fetch } from "./connection-settings.ts";

/** What a request has to know about the rollout that it is made in. */
export interface RolloutContext {
  readonly rolloutId: string;
  readonly model: string;
  readonly baseURL: string;
  readonly signal: AbortSignal;
  readonly calls: CallCounter;
}

/** Counts the model calls of a rollout and knows which are under way. */
export class CallCounter {
  #started = 0;
  readonly #open = new Set<number>();

  get started(): number {
    return this.#started;
  }

  /** The call that has been waiting longest; null when none is under way. */
  get current(): number | null {
    let least: number | null = null;
    for (const call of this.#open) if (least === null || call < least) least = call;
    return least;
  }

  begin(): () => void {
    this.#started += 1;
    const call = this.#started;
    this.#open.add(call);
    return () => this.#open.delete(call);
  }
}

const storageKey = Symbol.for("hone.rollout");
const registry = globalThis as { [storageKey]?: AsyncLocalStorage<RolloutContext> };

/** Kept under a global symbol, so that two copies of this package see the same rollout. */
const storage: AsyncLocalStorage<RolloutContext> = (registry[storageKey] ??=
  new AsyncLocalStorage<RolloutContext>());

export function runInRollout<T>(context: RolloutContext, work: () => T): T {
  return storage.run(context, work);
}

export function currentRollout(): RolloutContext | undefined {
  return storage.getStore();
}

/**
 * A fetch for clients that outlive a rollout. A chat completion of the rollout's own model goes to
 * the rollout's base URL; the key goes to the server's origin and nowhere else.
 */
export function createContextFetch(settings: ConnectionSettings): Fetch {
  const server = new URL(settings.serverURL);
  const prefix = server.pathname.replace(/\/+$/, "");
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.origin !== server.origin || !url.pathname.startsWith(`${prefix}/`)) {
      return await settings.fetch(input, init);
    }
    const call = await readCall(settings, input, init);
    const context = currentRollout();
    const captured =
      context !== undefined &&
      isChatCompletions(url.pathname.slice(prefix.length)) &&
      asksForModel(call.body, context.model);
    if (!captured) return await settings.fetch(url.href, call);
    return await sendInRollout(settings, context, `${context.baseURL}/chat/completions`, call);
  };
}

/** The fetch of one rollout's own base URL: counts its calls and ends them with the rollout. */
export function createRolloutFetch(settings: ConnectionSettings, context: RolloutContext): Fetch {
  const elsewhere = createContextFetch(settings);
  return async (input, init) => {
    const url = input instanceof Request ? input.url : input.toString();
    if (!url.startsWith(`${context.baseURL}/`)) {
      return await runInRollout(context, () => elsewhere(input, init));
    }
    return await sendInRollout(settings, context, url, await readCall(settings, input, init));
  };
}

/** The server's, or those of the rollout in which the client happened to be made. */
function isChatCompletions(path: string): boolean {
  return /^\/v1(\/rollouts\/[^/]+\/v1)?\/chat\/completions$/.test(path);
}

type Body = NonNullable<RequestInit["body"]> | null;
type Call = Omit<RequestInit, "body"> & { body: Body; headers: Headers };

/** The request as an init: an own fetch may be of another undici, which takes no Request of ours. */
async function readCall(
  settings: ConnectionSettings,
  input: Parameters<Fetch>[0],
  init: Parameters<Fetch>[1],
): Promise<Call> {
  const given: RequestInit =
    input instanceof Request
      ? {
          method: input.method,
          headers: input.headers,
          signal: input.signal,
          ...(input.body ? { body: await input.text() } : {}),
          ...init,
        }
      : { ...init };
  const headers = new Headers(given.headers);
  headers.set("authorization", `Bearer ${settings.apiKey}`);
  return { ...given, headers, body: given.body ?? null, redirect: "error" };
}

async function sendInRollout(
  settings: ConnectionSettings,
  context: RolloutContext,
  url: string,
  call: Call,
): Promise<Response> {
  const end = context.calls.begin();
  const signal = call.signal ? AbortSignal.any([call.signal, context.signal]) : context.signal;
  try {
    const response = await settings.fetch(url, { ...call, signal });
    const streams = response.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
    if (response.body && streams) return withEnd(response, response.body, context.signal, end);
    // An answer in one piece is over where it begins.
    end();
    return response;
  } catch (error) {
    // A call that the rollout's end cuts stays open: it is the one that the exception names.
    if (!context.signal.aborted) end();
    throw error;
  }
}

/** The response, with word of its last byte: until then the call is under way. */
function withEnd(
  response: Response,
  body: NonNullable<Response["body"]>,
  ending: AbortSignal,
  end: () => void,
): Response {
  const reader = body.getReader();
  const watched = new ReadableStream<Uint8Array>({
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
        if (!ending.aborted) end();
        controller.error(error);
      }
    },
    async cancel(reason) {
      end();
      await reader.cancel(reason);
    },
  });
  return new Response(watched, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
}

/** A judge behind the same server is another model: its calls are none of the rollout's. */
function asksForModel(body: Body, model: string): boolean {
  if (typeof body !== "string") return true;
  try {
    const ref: unknown = (JSON.parse(body) as { model?: unknown }).model;
    return typeof ref === "string" && parseModelRef(ref)?.model === model;
  } catch {
    // The server says better than we could what is wrong with the body.
    return true;
  }
}
