import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import type { Announcement } from "../joined/wire.ts";
import type { Reconciler } from "./reconciler.ts";
import type { ServerLink } from "./server-link.ts";

const firstWaitMs = 500;
const longestWaitMs = 10_000;

/** Another try passes no refusal; what is not there may come. */
function mayPass(error: unknown): boolean {
  if (!HoneError.isInstance(error)) return false;
  if (["connection_failed", "timeout"].includes(error.code)) return true;
  return error.status === 429 || error.status >= 500;
}

/** Tries until it works or cannot. Says once what it waits for. */
export async function patiently<T>(
  work: () => Promise<T>,
  signal: AbortSignal,
  log: Logger,
  what: string,
): Promise<T> {
  for (let waitMs = firstWaitMs, said = false; ; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !mayPass(error)) throw error;
      if (!said) log.warn({ err: error }, `${what}: trying again`);
      said = true;
      await delay(waitMs, undefined, { signal });
    }
  }
}

/** Goes on for as long as the sidecar lives. */
export interface Following {
  /** Resolves once the server knows the engine. */
  known: Promise<void>;
  /** Tells the server what is served, as soon as it can be told. */
  report: () => void;
  /** Rejects with what ends it; never resolves but for the signal, which rejects it too. */
  ended: Promise<never>;
}

/** Announces the engine, follows what the server wants of it, and tells what it serves. */
export function follow(options: {
  link: ServerLink;
  reconciler: Reconciler;
  boot: string;
  announcement: Announcement;
  isReady: () => boolean;
  signal: AbortSignal;
  log: Logger;
}): Following {
  const { link, reconciler, boot, signal, log } = options;
  let nowKnown: () => void = () => undefined;
  const known = new Promise<void>((resolve) => void (nowKnown = resolve));
  let isKnown = false;
  let toTell = false;
  let telling = false;

  async function tell(): Promise<void> {
    while (toTell && isKnown && !signal.aborted) {
      toTell = false;
      try {
        const now = { boot, ready: options.isReady(), ...reconciler.snapshot() };
        if (!(await link.report(now)).known) isKnown = false;
        log.debug({ served: now.served.map(({ policy }) => policy) }, "the server was told");
      } catch (error) {
        toTell = true;
        log.debug({ err: error }, "the server was not told: trying again");
        await delay(firstWaitMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  function report(): void {
    toTell = true;
    if (telling || !isKnown) return;
    telling = true;
    void tell().finally(() => {
      telling = false;
      // Between its last look and here there may have been more to tell.
      if (toTell && isKnown && !signal.aborted) report();
    });
  }

  async function once(after: number): Promise<number> {
    if (!isKnown) {
      // An engine that is away comes back first: the server would ask it.
      while (!options.isReady()) await delay(100, undefined, { signal });
      await link.announce(options.announcement, signal);
      isKnown = true;
      nowKnown();
      report();
    }
    const answer = await link.live(boot, after, signal);
    if (!answer.known) {
      isKnown = false;
      return 0;
    }
    if (answer.generation !== after) {
      log.debug({ generation: answer.generation }, "the server wants other adapters");
      reconciler.take(answer);
      reconciler.apply().catch((error: unknown) => {
        // It gets all of it when it is back.
        log.warn({ err: error }, "the engine does not answer");
      });
    }
    return answer.generation;
  }

  async function run(): Promise<never> {
    let after = 0;
    let waitMs = firstWaitMs;
    for (;;) {
      signal.throwIfAborted();
      try {
        after = await once(after);
        if (waitMs > firstWaitMs) log.info("the server is back");
        waitMs = firstWaitMs;
      } catch (error) {
        if (signal.aborted || !mayPass(error)) throw error;
        if (waitMs === firstWaitMs) log.warn({ err: error }, "the server cannot be reached");
        await delay(waitMs, undefined, { signal });
        waitMs = Math.min(waitMs * 2, longestWaitMs);
      }
    }
  }

  const ended = run();
  ended.catch(() => undefined);
  return { known, report, ended };
}
