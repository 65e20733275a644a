import { pause, retryAdvice, retryAfterMs, type ConnectionSettings } from "@hone/transport";
import type { Call } from "../request-call.ts";

/** Until when a server has asked to be left alone. By the monotonic clock. @unit ms */
const quietUntil = new WeakMap<ConnectionSettings, number>();

/** SDKs count their tries in it. The server then knows that this is the same request once more. */
const triesHeader = "x-stainless-retry-count";
/** Where the server does not say. @unit ms */
const defaultWaitMs = 1_000;

/**
 * Sends a call, and sends it again for as long as the server answers that its engines are full (429). That takes none
 * of the SDK's own retries, which are few and meant for failures. The call's signal ends the wait.
 */
export async function sendWhenFree(
  settings: ConnectionSettings,
  call: Call,
  send: (call: Call) => Promise<Response>,
): Promise<Response> {
  let tried = Number(call.headers.get(triesHeader) ?? 0);
  for (let again = call; ;) {
    const response = await send(again);
    // A proxy's 429 says nothing about trying again, and goes to whoever asked.
    if (response.status !== 429 || retryAdvice(response.headers) !== true) return response;
    await response.body?.cancel();
    const waitMs = retryAfterMs(response.headers) ?? defaultWaitMs;
    const until = performance.now() + waitMs;
    quietUntil.set(settings, Math.max(quietUntil.get(settings) ?? 0, until));
    await pause(waitMs, call.signal ?? undefined);
    const headers = new Headers(call.headers);
    headers.set(triesHeader, String(++tried));
    again = { ...call, headers };
  }
}

/** Resolves once the server has not asked to be left alone: until then, new rollouts would only make it fuller. */
export async function untilFree(settings: ConnectionSettings, signal: AbortSignal): Promise<void> {
  for (;;) {
    const waitMs = (quietUntil.get(settings) ?? 0) - performance.now();
    if (waitMs <= 0) return;
    await pause(waitMs, signal);
  }
}
