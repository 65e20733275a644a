import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { watchRemoteEngine } from "../supervise/remote-engine.ts";
import { publicStatus, supervise, type SupervisorOptions } from "../supervise/supervisor.ts";
import { noteAwaited } from "./awaited.ts";
import { createHttpEngine, type HttpEngine } from "./http-engine.ts";
import type { EnginePool } from "./pool.ts";
import { vllmHealthBeside } from "./vllm/health.ts";
import { askWhileIdle } from "./vllm/idle-token.ts";
import { releaseOf } from "./vllm/release.ts";
import { shareMetrics } from "./vllm/metrics-page.ts";
import type { EngineSleep } from "./vllm/sleep.ts";

/** An engine besides the worker, and whoever looks after its process. */
export interface KeptEngine {
  name: string;
  engine: HttpEngine;
  /** How many sequences it batches, where that is known. */
  maxSequences: () => number | undefined;
  /** Throws why it takes no traffic, while it does not. */
  requireUp: () => string;
  /** It lags behind and is made ready again. */
  onFenced: () => void;
  status: () => { state: string; restarts: number; version?: string };
  /** Where it sleeps while a step trains. */
  sleep?: EngineSleep | undefined;
  /** Resolves once it takes traffic. */
  start: () => Promise<void>;
  stop: () => Promise<void>;
}

export interface Keeping {
  /** For logs, and the name of its part in the server's health. */
  name: string;
  /** It tells the pool when the engine may be used, and when not. The pool is made with the engine, so after it. */
  pool: () => Pick<EnginePool, "admit" | "fence" | "missing">;
  log: Logger;
}

/** An engine that others run. */
export function keepRemoteEngine(
  options: Keeping & { url: string; engine: HttpEngine; maxSequences?: number | undefined },
): KeptEngine {
  const { name, pool, url, engine, maxSequences, log } = options;
  const release = releaseOf(options);
  const watcher = watchRemoteEngine({
    url,
    missing: () => pool().missing(name),
    async onReady() {
      await release.look();
      await pool().admit(name);
    },
    onLost: () => pool().fence(name),
    log,
  });
  return {
    name,
    engine,
    maxSequences: () => maxSequences,
    requireUp: () => watcher.baseURL(),
    onFenced: () => watcher.doubt(),
    status: () => ({ ...watcher.status(), ...release.shown() }),
    start: () => watcher.start(),
    async stop() {
      const stopped = watcher.stop();
      // It may be asking an engine that hangs, which would take up to minutes.
      await engine.close();
      await stopped;
    },
  };
}

type EngineChild = Omit<SupervisorOptions, "log" | "health" | "onReady" | "onLost">;

/** Its limits are minutes and half minutes. */
const healthEveryMs = 1_000;

/** A vLLM that is a child of this server: started, kept alive and ended by it. */
export function keepVllm(
  options: Keeping & {
    child: EngineChild;
    maxSequences?: number | undefined;
    /** Requests that wait for it and have reached it on another way than by its driver. */
    awaitedBeside?: (() => number) | undefined;
    sleep?: EngineSleep | undefined;
    /** How long it may rest before it is asked for a token, which shows whether it stands still. @unit ms @default 15000 */
    idleMs?: number | undefined;
  },
): KeptEngine & { key: () => string } {
  let awaited = 0;
  const page = shareMetrics();
  const watched = vllmHealthBeside(() => awaited + (options.awaitedBeside?.() ?? 0), page);
  // One that sleeps has nothing to answer with.
  const health = options.sleep
    ? watched
    : askWhileIdle(watched, (signal) => askForToken(engine, signal), { everyMs: options.idleMs });
  const onStarted = (): Promise<void> => release.look();
  const child = { pollMs: healthEveryMs, ...options.child };
  const kept = keepChild({ ...options, child, kind: "vllm", health, onStarted });
  const release = releaseOf({ ...options, engine: kept.engine });
  const engine: HttpEngine = {
    ...kept.engine,
    // Async: while it is away there is no URL, which is one more way to have no metrics.
    metrics: async () => await soonEnough(page(kept.rawBaseURL())),
    async *generate(request) {
      let isAwaited = false;
      yield* noteAwaited(kept.engine.generate(request), (is) => {
        if (is !== isAwaited) awaited += is ? 1 : -1;
        isAwaited = is;
      });
    },
  };
  const status = (): ReturnType<KeptEngine["status"]> => ({ ...kept.status(), ...release.shown() });
  return { ...kept, engine, status };
}

/** Of the bare base. What the token is does not matter, and each vocabulary has a first one. */
async function askForToken(engine: HttpEngine, signal: AbortSignal): Promise<void> {
  const { base } = await engine.info();
  const asked = engine.generate({
    ...{ model: base, prompt: [0], n: 1, maxTokens: 1, temperature: 0, topP: 1, seed: null },
    ...{ stop: [], stopTokenIds: [], stream: false, signal },
  });
  for await (const _ of asked);
}

/** For who reads an engine's metrics only as a hint. @unit ms */
const hintTimeoutMs = 900;

async function soonEnough(page: Promise<string>): Promise<string> {
  const late = new AbortController();
  const limit = delay(hintTimeoutMs, undefined, { signal: late.signal }).then(() => {
    throw new HoneError(`vLLM did not answer GET /metrics in ${hintTimeoutMs} ms.`, {
      ...{ code: "engine_unavailable", retryAfterMs: 1_000 },
    });
  });
  try {
    return await Promise.race([page, limit]);
  } finally {
    limit.catch(() => undefined);
    late.abort();
  }
}

/** The same for any engine that is a child. */
export function keepChild(
  options: Keeping & {
    kind: HttpEngine["kind"];
    child: EngineChild;
    health?: SupervisorOptions["health"];
    maxSequences?: number | undefined;
    /** Hears of each start, before the engine takes traffic. */
    onStarted?: ((baseURL: string, key: string) => Promise<void>) | undefined;
    /** Where it sleeps while a step trains. */
    sleep?: EngineSleep | undefined;
  },
): KeptEngine & { key: () => string; baseURL: () => string; rawBaseURL: () => string } {
  const { name, pool, kind, child, health, maxSequences, sleep, log } = options;
  const supervised = supervise({
    ...child,
    health,
    onReady: async () => {
      const [baseURL, key] = [supervised.rawBaseURL(), supervised.key()];
      await options.onStarted?.(baseURL, key);
      const admit = () => pool().admit(name);
      await (sleep ? sleep.admit(baseURL, key, admit) : admit());
    },
    onLost: () => {
      sleep?.lost();
      pool().fence(name);
    },
    log,
  });
  return {
    name,
    maxSequences: () => maxSequences,
    engine: createHttpEngine({ kind, baseURL: supervised.rawBaseURL, key: supervised.key }),
    key: supervised.key,
    baseURL: supervised.baseURL,
    rawBaseURL: supervised.rawBaseURL,
    requireUp: () => supervised.baseURL(),
    onFenced: () => supervised.doubt(),
    status: () => {
      const status = publicStatus(supervised.status());
      if (!sleep) return status;
      const asleep = sleep.status();
      // It is admitted again by being doubted, which is no restart.
      const isWaking = asleep.state === "waking" && status.state === "restarting";
      return { ...status, ...(isWaking && { state: "starting" }), sleep: asleep };
    },
    start: () => supervised.start(),
    stop: () => supervised.stop(),
  };
}
