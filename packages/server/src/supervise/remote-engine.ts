import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";

export interface RemoteEngine {
  /** Throws `engine_unavailable` until the engine has answered and the hook has run since. */
  baseURL(): string;
  /** What it serves is not what it should: it is made ready again before it takes traffic. */
  doubt(): void;
  status(): { state: "starting" | "ready" | "unreachable"; restarts: number };
  /** Rejects when the engine does not answer now. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const defaultPollMs = 1_000;

/**
 * Watches an engine that is not our child. An engine that was away may be another process now, so it gets the
 * live policies before it takes traffic again.
 */
export function watchRemoteEngine(options: {
  url: string;
  /** Live policies that it does not serve. Rejects when it does not answer. */
  missing: () => Promise<readonly string[]>;
  onReady: () => Promise<void>;
  /** It takes no traffic until `onReady` has run again. */
  onLost?: (() => void) | undefined;
  log: Logger;
  pollMs?: number | undefined;
}): RemoteEngine {
  const { url, missing, onReady, log } = options;
  const pollMs = options.pollMs ?? defaultPollMs;
  const stopping = new AbortController();
  let state: "starting" | "ready" | "unreachable" = "starting";
  let restarts = 0;
  let loop: Promise<void> = Promise.resolve();

  function doubt(): void {
    if (state === "ready") options.onLost?.();
    state = "unreachable";
  }

  async function check(): Promise<void> {
    // This shows a restart between two polls, and also a single policy that somebody else has unloaded. Requests for
    // such a policy would be refused for ever; once it is being loaded again, they may be retried.
    const lost = await missing();
    if (state === "ready" && lost.length === 0) return;
    if (state === "ready") {
      log.warn({ url, lost }, "the engine does not serve what it was given: loading it again");
      doubt();
    }
    await onReady();
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
        doubt();
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
    doubt,
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
