import { HoneError, isErrorCode, scoresSchema } from "@hone/core";
import type { ScoreItem, Scores } from "@hone/core";
import type { HoneServer } from "../judge/hone-server.ts";
import { retryAfterMs } from "../judge/retry.ts";

export interface ScoreSettings {
  server: HoneServer;
  model: string;
  label: string | null;
  tooLong: "error" | "null" | "truncate";
  maxRetries: number;
  timeoutMs: number;
  fetch: typeof globalThis.fetch;
}

export type ItemScore = Scores["data"][number];
/** An item's score, or what was wrong with that item alone. */
export type ItemResult = { score: ItemScore; maxTokens: number } | { error: HoneError };

/**
 * Scores of all items in one request. An item that the server refuses gets its own error, and the others are
 * asked for again without it; any other failure is thrown.
 */
export async function requestScores(
  items: readonly ScoreItem[],
  settings: ScoreSettings,
  signal: AbortSignal | undefined,
): Promise<ItemResult[]> {
  const results = new Map<number, ItemResult>();
  for (;;) {
    const open = [...items.keys()].filter((place) => !results.has(place));
    if (open.length === 0) return [...items.keys()].map((place) => results.get(place)!);
    try {
      const body = open.map((place) => items[place]!);
      const { data, model } = await withRetries(
        () => send(body, settings, signal),
        settings,
        signal,
      );
      if (data.length !== open.length) throw notScores();
      for (const [at, place] of open.entries()) {
        results.set(place, { score: data[at]!, maxTokens: model.maxTokens });
      }
    } catch (error) {
      const place = HoneError.isInstance(error) ? open[refusedItem(error) ?? -1] : undefined;
      if (place === undefined || !HoneError.isInstance(error)) throw error;
      results.set(place, { error: ofTrajectory(error) });
    }
  }
}

/** Which of the items an answer of 400 is about. */
function refusedItem({ status, param }: HoneError): number | null {
  const found = status === 400 ? /^items\[(\d+)\]/.exec(param ?? "")?.[1] : undefined;
  return found === undefined ? null : Number(found);
}

/** Its place in a request says nothing to whoever scores a trajectory. */
function ofTrajectory({ message, code, status, param }: HoneError): HoneError {
  return new HoneError(message.replace(/^items\[\d+\]:? /, "The trajectory "), {
    code,
    status,
    param: param?.replace(/^items\[\d+\]\.?/, "") || undefined,
  });
}

async function send(
  items: readonly ScoreItem[],
  { server, model, label, tooLong, timeoutMs, fetch }: ScoreSettings,
  signal: AbortSignal | undefined,
): Promise<Scores> {
  const limit = AbortSignal.timeout(timeoutMs);
  let response: Response;
  let value: unknown;
  try {
    response = await fetch(`${server.url}/v1/score`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${server.apiKey}`,
        "content-type": "application/json",
        accept: "application/json",
      },
      body: JSON.stringify({ model, items, tooLong, ...(label !== null && { label }) }),
      // A redirect would carry the key to a place that nobody named.
      redirect: "error",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    value = await response.json();
  } catch (cause) {
    signal?.throwIfAborted();
    throw limit.aborted
      ? new HoneError(`The Hone server gave no scores within ${timeoutMs} ms. Raise timeoutMs.`, {
          code: "timeout",
          cause,
        })
      : new HoneError(`The Hone server at ${server.url} could not be reached for scores.`, {
          code: "connection_failed",
          cause,
        });
  }
  if (!response.ok) throw refusal(response, value);
  const parsed = scoresSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw notScores(parsed.error);
}

function refusal(response: Response, value: unknown): HoneError {
  const { error } = (value ?? {}) as {
    error?: { message?: string; code?: unknown; param?: string | null };
  };
  return new HoneError(error?.message ?? `The Hone server answered ${response.status}.`, {
    code: isErrorCode(error?.code) ? error.code : "invalid_response",
    param: error?.param ?? undefined,
    status: response.status,
    retryAfterMs: retryAfterMs(response.headers) ?? undefined,
  });
}

function notScores(cause?: unknown): HoneError {
  return new HoneError(
    "The server's answer holds no scores. Use the same version of server and ruler.",
    { code: "invalid_response", cause },
  );
}

/** Attempts again what may pass: lost connections, a server or worker that restarts. */
async function withRetries<T>(
  attempt: () => Promise<T>,
  { maxRetries }: ScoreSettings,
  signal: AbortSignal | undefined,
): Promise<T> {
  for (let retry = 0; ; retry += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!HoneError.isInstance(error) || retry >= maxRetries || !mayPass(error)) throw error;
      const pauseMs = error.retryAfterMs ?? Math.random() * Math.min(8000, 500 * 2 ** retry);
      await pause(pauseMs, signal);
    }
  }
}

function mayPass({ code, status }: HoneError): boolean {
  return code === "connection_failed" || status === 429 || status === 502 || status === 503;
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
  signal?.throwIfAborted();
}
