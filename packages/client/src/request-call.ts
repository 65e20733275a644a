import { parseModelRef } from "@hone/core";
import type { ConnectionSettings, Fetch } from "@hone/transport";

type Body = NonNullable<RequestInit["body"]> | null;

/**
 * A request to the server, as the second argument of `fetch`. It is no `Request`, because the user's `fetch` may
 * come from another copy of undici, which does not accept ours.
 */
export interface Call extends Omit<RequestInit, "body"> {
  method: string;
  headers: Headers;
  body: Body;
}

/** The input if it is a Request, even one of another copy of undici. */
function asRequest(input: Parameters<Fetch>[0]): Request | null {
  return typeof input === "object" && "headers" in input && "url" in input ? input : null;
}

export function urlOf(input: Parameters<Fetch>[0]): URL {
  return new URL(asRequest(input)?.url ?? input);
}

/** The request with our key, and with a body that can be sent again. */
export async function readCall(
  settings: ConnectionSettings,
  input: Parameters<Fetch>[0],
  init: RequestInit = {},
): Promise<Call> {
  const request = asRequest(input);
  const headers = new Headers(init.headers ?? request?.headers);
  headers.set("authorization", `Bearer ${settings.apiKey}`);
  // Anthropic's SDK may have taken a key of the environment, which is not for this server.
  headers.delete("x-api-key");
  const signal = init.signal ?? request?.signal;
  const given = init.body ?? (request?.body ? await request.arrayBuffer() : null);
  return {
    ...init,
    method: (init.method ?? request?.method ?? "GET").toUpperCase(),
    headers,
    ...(signal ? { signal } : {}),
    body: await readBody(given),
    redirect: "error",
  };
}

/** Reads what may be a stream into bytes, because a stream can be sent only once. Forms set their content type. */
async function readBody(body: Body): Promise<Body> {
  if (body === null || typeof body === "string") return body;
  if (body instanceof FormData || body instanceof URLSearchParams) return body;
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return body;
  return await new Response(body).arrayBuffer();
}

/** For a server that is not ours: the request as it is, without our key. */
export function withoutKey(
  settings: ConnectionSettings,
  input: Parameters<Fetch>[0],
  init: RequestInit | undefined,
): RequestInit | undefined {
  const given = init?.headers ?? asRequest(input)?.headers;
  if (!given) return init;
  const headers = new Headers(given);
  const ours = [...headers].filter(([, value]) => value.includes(settings.apiKey));
  if (ours.length === 0) return init;
  for (const [name] of ours) headers.delete(name);
  return { ...init, headers };
}

/** Whether a call asks for this model. One that asks for another, such as a judge, is not the rollout's. */
export function asksForModel({ body }: Call, model: string): boolean {
  const text = textOf(body);
  if (text === null) return true;
  try {
    const ref: unknown = (JSON.parse(text) as { model?: unknown }).model;
    return typeof ref === "string" && parseModelRef(ref)?.model === model;
  } catch {
    // The server says better than we could what is wrong with the body.
    return true;
  }
}

/** How many answers a call asks for. */
export function choicesOf({ body }: Call): number {
  try {
    const n: unknown = (JSON.parse(textOf(body) ?? "{}") as { n?: unknown }).n;
    return typeof n === "number" && n > 1 ? n : 1;
  } catch {
    return 1;
  }
}

function textOf(body: Body): string | null {
  const text =
    body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? new TextDecoder().decode(body) : body;
  return typeof text === "string" ? text : null;
}
