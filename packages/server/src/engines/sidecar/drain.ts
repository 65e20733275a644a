import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import type { EngineProxy } from "./proxy.ts";
import type { ServerLink } from "./server-link.ts";

/** How often it is looked whether requests still run here, and how often the server is told again meanwhile. */
const [lookEveryMs, tellEveryMs] = [100, 1_000];

/**
 * Tells the server to send nothing new, and waits until no request runs, here or on its way. A server that starts anew
 * meanwhile is told again. One that has removed the engine is left alone: it sends nothing, and what runs may finish.
 */
export async function drain(options: {
  link: Pick<ServerLink, "drain">;
  boot: string;
  proxy: Pick<EngineProxy, "inFlight">;
  /** @unit ms */
  limitMs: number;
  /** Aborts when nothing is waited for any more. */
  hurry?: AbortSignal | undefined;
  log: Logger;
}): Promise<void> {
  const { link, boot, proxy, hurry, log } = options;
  const until = performance.now() + options.limitMs;
  let isRemoved = false;
  /** Requests that the server has under way on this engine; a server that is away routes nothing here. */
  const tell = async (): Promise<number> => {
    try {
      return isRemoved ? 0 : (await link.drain(boot)).inFlight;
    } catch (error) {
      isRemoved = HoneError.isInstance(error) && error.code === "invalid_api_key";
      return 0;
    }
  };
  for (let toldAt = -Infinity; ;) {
    const isDue = performance.now() - toldAt >= tellEveryMs;
    if (isDue || proxy.inFlight === 0) {
      toldAt = performance.now();
      if ((await tell()) + proxy.inFlight === 0) return;
    }
    if (hurry?.aborted) return;
    if (performance.now() > until) {
      log.warn({ inFlight: proxy.inFlight }, "requests are cut off: the time to drain is over");
      return;
    }
    await delay(lookEveryMs, undefined, { signal: hurry }).catch(() => undefined);
  }
}
