import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import type { Engine } from "../ports/engine.ts";

export interface RemoteEngine {
  /** Throws `engine_unavailable` until the engine has answered and the hook has run since. */
  baseURL(): string;
  status(): { state: "starting" | "ready" | "unreachable"; restarts: number };
  /** Rejects when the engine does not answer now. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const pollMs = 1_000;

/**
 * Watches an engine that is not our child. One that was away may be another process now: it gets the
 * live policies before it takes traffic again.
 */
export function watchRemoteEngine(options: {
  url: string;
  engine: () => Engine;
  onReady: () => Promise<void>;
  log: Logger;
}): RemoteEngine {
  const { url, engine, onReady, log } = options;
  const stopping = new AbortController();
  let state: "starting" | "ready" | "unreachable" = "starting";
  let restarts = 0;
  let known = new Set<string>();
  let loop: Promise<void> = Promise.resolve();

  async function check(): Promise<void> {
    const served = await engine().served();
    // A restart between two polls shows in this: it has none of the policies that it had.
    const lost = known.size > 0 && [...known].every((policy) => !served.has(policy));
    if (state === "ready" && !lost) {
      known = served;
      return;
    }
    if (state === "ready") state = "unreachable";
    await onReady();
    known = await engine().served();
    if (state === "unreachable") {
      restarts++;
      log.info({ url }, "the engine is back");
    }
    state = "ready";
  }

  async function watch(): Promise<void> {
    while (!stopping.signal.aborted) {
      await delay(pollMs, undefined, { signal: stopping.signal }).catch(() => undefined);
      if (stopping.signal.aborted) return;
      await check().catch((error: unknown) => {
        if (state === "ready") log.error({ url, err: error }, "the engine does not answer");
        state = "unreachable";
      });
    }
  }

  return {
    baseURL() {
      if (state === "ready") return url;
      throw new HoneError("The engine does not answer. Send the request again in a moment.", {
        code: "engine_unavailable",
        retryAfterMs: pollMs,
      });
    },
    status: () => ({ state, restarts }),
    async start() {
      await check();
      loop = watch();
    },
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}
