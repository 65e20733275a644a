import { setTimeout as delay } from "node:timers/promises";
import { HoneError, type EngineInfo } from "@hone/core";
import type { Logger } from "pino";
import type { AdapterBucket } from "../bucket/adapter-bucket.ts";
import type { EnginePool, Replica } from "../pool.ts";
import { addressRule } from "../addresses.ts";
import { checkFit, checkReach } from "./announced.ts";
import { createJoinedDriver, type JoinedDriver } from "./driver.ts";
import { openEngineRegistry, type EngineRegistry } from "./registry.ts";
import { longestPollMs, type Announcement, type Report, type ServedBaseOnWire } from "./wire.ts";

/** An engine that joined, or may come back: its key is known. */
export interface JoinedEngine {
  readonly name: string;
  readonly driver: JoinedDriver;
  readonly state: EngineInfo["state"];
  /** Which start of its sidecar is known; null where none is. */
  readonly boot: string | null;
  /** Every request of its sidecar is a sign of life. */
  heard(): void;
  /** Throws why an engine that is so cannot be used. @param from the address that it says so from */
  announced(announcement: Announcement, from: string | undefined): Promise<void>;
  reported(report: Report): void;
  drain(): void;
}

export interface JoinedEngines {
  readonly registry: EngineRegistry;
  /** Throws why engines cannot join this server. */
  requireOpen(): void;
  base(): ServedBaseOnWire;
  /** What the operator lets engines differ by from the trainer; null where nothing was said. */
  readonly probeTolerance: number | null;
  /** Where else engines get adapters; null where from this server alone. */
  readonly bucket: AdapterBucket | null;
  find(name: string): JoinedEngine;
  /** Adds one that has just got its key. */
  add(name: string): void;
  /** Its key is worth nothing any more; what streams from it may finish within a minute. */
  remove(name: string): void;
  /** All engines of the pool, these among them. */
  list(): EngineInfo[];
  /** For the server's health. */
  status(): Record<string, { state: "ready" | "starting" | "unreachable" | "stopped" }>;
  anyServes(): boolean;
  /** Those that joined, as the pool has them. */
  replicas(): Replica[];
  /** From now on engines may come and take traffic. */
  start(): void;
  /** Aborts when the server stops: nobody waits for news any more. */
  readonly stopping: AbortSignal;
  /** The server stops. */
  refuse(): void;
  stop(): Promise<void>;
}

const lookEveryMs = 1_000;
const longestBackoffMs = 15_000;
/** An adapter comes over a network, and may take longer than others wait for it. */
const leastLoadMs = 30_000;
/** Longer than the sidecar waits for news. */
const silenceMs = longestPollMs + 5_000;
/** As long as an engine waits that leaves by itself. */
const finishMs = 60_000;

export function createJoinedEngines(options: {
  dataDir: string;
  pool: () => EnginePool;
  /** Why engines cannot join, if so. */
  closed: string | null;
  base: () => ServedBaseOnWire;
  probeTolerance?: number | undefined;
  /** How long a load may take at least, before nobody waits for it any more. @unit ms */
  publishDeadlineMs?: number | undefined;
  bucket?: AdapterBucket | null | undefined;
  /** Names of other parts of the server. */
  taken: readonly string[];
  log: Logger;
}): JoinedEngines {
  const { pool, log, closed } = options;
  const registry = openEngineRegistry(options);
  const engines = new Map<string, Kept>();
  /** Those that were removed and from which something streams still. */
  const leaving = new Set<Promise<void>>();
  const stopping = new AbortController();
  let isOpen = false;
  let open: () => void = () => undefined;
  const started = new Promise<void>((resolve) => void (open = resolve));
  if (closed === null) for (const name of registry.names()) add(name);

  function add(name: string): void {
    const one = keepJoinedEngine({ ...options, name, started, stopping });
    engines.set(name, one);
    pool().add(one.replica);
  }

  function find(name: string): Kept {
    const found = engines.get(name);
    if (found) return found;
    throw new HoneError(`There is no engine "${name}" that joined. \`hone engines\` lists all.`, {
      code: "not_found",
    });
  }

  return {
    registry,
    base: options.base,
    probeTolerance: options.probeTolerance ?? null,
    bucket: options.bucket ?? null,
    stopping: stopping.signal,
    find,
    add,
    requireOpen() {
      if (closed !== null) throw new HoneError(closed, { code: "invalid_request" });
      if (isOpen) return;
      throw new HoneError("The server is starting. Send the request again in a moment.", {
        ...{ code: "worker_unavailable", retryAfterMs: 1_000 },
      });
    },
    remove(name) {
      const one = find(name);
      registry.remove(name);
      engines.delete(name);
      pool().remove(name);
      log.info({ engine: name }, "the engine was removed");
      const gone = one.finish().finally(() => leaving.delete(gone));
      leaving.add(gone);
    },
    replicas: () => [...engines.values()].map(({ replica }) => replica),
    list: () =>
      pool()
        .status()
        .map(({ name, state, reason, policies }) => {
          const joined = engines.get(name);
          return {
            object: "hone.engine",
            name,
            joined: joined !== undefined,
            url: joined?.url() ?? null,
            state: joined?.state === "draining" ? "draining" : state,
            reason: reason ?? joined?.reason() ?? null,
            generation: joined?.driver.report()?.generation ?? null,
            policies,
          };
        }),
    status: () =>
      Object.fromEntries([...engines.values()].map((one) => [one.name, { state: one.health() }])),
    anyServes: () => [...engines.values()].some(({ state }) => state === "serving"),
    start() {
      isOpen = true;
      open();
    },
    refuse: () => stopping.abort(),
    async stop() {
      stopping.abort();
      open();
      await Promise.all([...[...engines.values()].map((one) => one.stop()), ...leaving]);
    },
  };
}

interface Kept extends JoinedEngine {
  replica: Replica;
  url(): string | null;
  reason(): string | null;
  health(): "ready" | "starting" | "unreachable" | "stopped";
  /** Stops once nothing streams from it any more. */
  finish(): Promise<void>;
  stop(): Promise<void>;
}

/** Looks after one: admits it when it can be used, fences it when it cannot. */
function keepJoinedEngine(options: {
  name: string;
  pool: () => EnginePool;
  base: () => ServedBaseOnWire;
  publishDeadlineMs?: number | undefined;
  bucket?: AdapterBucket | null | undefined;
  started: Promise<void>;
  stopping: AbortController;
  log: Logger;
}): Kept {
  const { name, pool, log } = options;
  const deadlineMs = Math.max(leastLoadMs, options.publishDeadlineMs ?? 0);
  const driver = createJoinedDriver({ name, deadlineMs, bucket: options.bucket });
  const ended = new AbortController();
  const over = AbortSignal.any([ended.signal, options.stopping.signal]);
  let wake = new AbortController();
  let state: EngineInfo["state"] = "away";
  let reason: string | null = "It has not come yet.";
  let known: Announcement | null = null;
  let heardAt = 0;
  let backoffMs = lookEveryMs;

  function lose(why: string): void {
    // By now its name may be another one's.
    if (ended.signal.aborted) return;
    if (state === "serving") log.warn({ engine: name, why }, "the engine takes no traffic now");
    if (state !== "draining") state = "away";
    reason = why;
    pool().fence(name);
  }

  const statusOf = () =>
    pool()
      .status()
      .find((one) => one.name === name);

  const isSilent = (): boolean => performance.now() - heardAt > silenceMs;

  /** Beside `watch`, which may wait for the very engine that says nothing any more. */
  const listening = setInterval(() => {
    if (!known || !isSilent() || state === "away") return;
    if (state === "draining") state = "away";
    lose(fault() ?? "");
    driver.hangUp();
  }, lookEveryMs);
  listening.unref();

  /** Why it cannot be used now; null where it can. */
  function fault(): string | null {
    if (!known) return "It has not come yet.";
    if (isSilent()) return `It has not been heard of for ${silenceMs / 1000} s.`;
    if (state === "draining") return "It is about to leave.";
    return driver.report()?.ready ? null : "The engine behind it is not ready.";
  }

  async function look(): Promise<void> {
    const why = fault();
    if (why !== null) {
      if (state === "serving" || why !== reason) lose(why);
      return;
    }
    // The pool may have lost it by a way that is not known here: it is admitted again.
    if (state === "serving" && statusOf()?.state === "serving") {
      const lost = await pool().missing(name);
      // It may have been lost or removed meanwhile.
      if (lost.length === 0 || (state as EngineInfo["state"]) !== "serving") return;
      if (ended.signal.aborted) return;
      lose(`It does not serve ${lost.join(", ")}.`);
    }
    state = "loading";
    await pool().admit(name);
    if (ended.signal.aborted) return;
    driver.keepOnly(new Set(statusOf()?.policies));
    // It may have begun to leave while it was admitted.
    if ((state as EngineInfo["state"]) !== "loading") return pool().fence(name);
    state = "serving";
    reason = null;
    backoffMs = lookEveryMs;
    log.info({ engine: name, url: known?.url }, "the engine takes traffic");
  }

  async function watch(): Promise<void> {
    await options.started;
    while (!over.aborted) {
      wake = new AbortController();
      await look().catch((error: unknown) => {
        log.warn({ engine: name, err: error }, "the engine cannot take traffic");
        lose((error as Error).message);
        backoffMs = Math.min(backoffMs * 2, longestBackoffMs);
      });
      const signal = AbortSignal.any([over, wake.signal]);
      await delay(backoffMs, undefined, { signal }).catch(() => undefined);
    }
  }

  function soon(): void {
    backoffMs = lookEveryMs;
    wake.abort();
  }

  const watching = watch();

  function end(): void {
    ended.abort();
    clearInterval(listening);
    known = null;
  }

  return {
    name,
    driver,
    get state() {
      return state;
    },
    get boot() {
      return known?.boot ?? null;
    },
    replica: {
      name,
      engine: driver,
      maxSequences: () => known?.maxSequences ?? undefined,
      requireUp() {
        if (state === "serving") return;
        throw new HoneError(`The engine ${name} takes no traffic now. Send the request again.`, {
          code: "engine_unavailable",
          retryAfterMs: lookEveryMs,
        });
      },
      onFenced() {
        lose("It lags behind the others.");
      },
    },
    url: () => known?.url ?? null,
    reason: () => reason,
    health() {
      if (state === "serving") return "ready";
      if (state === "draining") return "stopped";
      return state === "loading" ? "starting" : "unreachable";
    },
    heard() {
      heardAt = performance.now();
    },
    async announced(announcement, from) {
      checkFit(name, announcement, options.base());
      const rule = addressRule(from);
      await rule.require(announcement.url);
      await checkReach(announcement, rule);
      if (state === "draining") state = "away";
      lose("It has just come.");
      known = announcement;
      driver.moved(announcement, rule);
      soon();
    },
    reported(report) {
      const wasReady = driver.report()?.ready ?? false;
      driver.heard(report);
      if (report.ready !== wasReady) soon();
    },
    drain() {
      if (state === "draining") return;
      state = "draining";
      lose("It is about to leave.");
      log.info({ engine: name }, "the engine is about to leave");
    },
    async finish() {
      end();
      await driver.finished(
        AbortSignal.any([options.stopping.signal, AbortSignal.timeout(finishMs)]),
      );
      await this.stop();
    },
    async stop() {
      end();
      // It may be waiting for an engine that hangs.
      await driver.close();
      await watching;
    },
  };
}
