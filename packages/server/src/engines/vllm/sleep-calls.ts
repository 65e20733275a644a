import { HoneError } from "@hone/core";

interface Address {
  baseURL: string;
  key: string;
}

/** The weights go to the machine's memory and back, over its bus. @unit ms */
const limitMs = 120_000;

/**
 * Level 1: the base's weights and the adapters in their slots go to the machine's memory, keys and values are dropped.
 * Requests that are still under way end first.
 */
export async function sleepOf(engine: Address): Promise<void> {
  await post(engine, "/sleep?level=1&mode=wait");
}

/** Resolves once all of it is back on the card. */
export async function wakeOf(engine: Address): Promise<void> {
  const { status } = (await post(engine, "/wake_up")) as { status?: unknown };
  if (status === "awake") return;
  throw new HoneError(`vLLM says of itself that it is ${String(status)} after it was woken.`, {
    code: "engine_error",
  });
}

async function post({ baseURL, key }: Address, path: string): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(baseURL + path, {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      signal: AbortSignal.timeout(limitMs),
    });
  } catch (cause) {
    throw new HoneError(`vLLM did not answer POST ${path}.`, {
      ...{ code: "engine_unavailable", cause, retryAfterMs: 1_000 },
    });
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw new HoneError(`vLLM answered POST ${path} with ${response.status}: ${text.slice(0, 300)}`, {
    code: "engine_error",
  });
}
