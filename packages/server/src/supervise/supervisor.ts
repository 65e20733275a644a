import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { startChild, type Child, type ChildOptions } from "./child.ts";
import { readHealth, type Health } from "./health.ts";
import { residentBytes } from "./memory.ts";
import { createStillClock, type StillClock } from "./still-clock.ts";

export interface Deadlines {
  /** To be ready, base loaded. A child that tells of its start must make progress within this. */
  startingMs: number;
  /** `progress` must advance within this while it decodes. Time in which it is idle does not count, and clears nothing. */
  decodingMs: number;
  /** The same while it trains: one micro-batch, one checkpoint. */
  trainingMs: number;
  /** `/health` must answer within this while it is idle. */
  idleMs: number;
}

const defaultDeadlines: Deadlines = {
  startingMs: 300_000,
  decodingMs: 60_000,
  trainingMs: 300_000,
  idleMs: 30_000,
};

export interface SupervisorOptions extends Omit<ChildOptions, "readyTimeoutMs" | "onStarting"> {
  /** Asks a child that is ready how far it is. @default its `GET /health`, by the contract of our children */
  health?: ((child: Child, signal?: AbortSignal) => Promise<Health>) | undefined;
  deadlines?: Partial<Deadlines> | undefined;
  pollMs?: number | undefined;
  /** A child that holds more of the machine's memory is restarted. @default no limit */
  maxMemoryBytes?: number | undefined;
  /** First wait before a restart; it doubles up to 10 s. */
  backoffMs?: number | undefined;
  /** Runs before each start, which fails where it rejects. */
  beforeStart?: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Runs after each start, before others may use the child. A child whose hook fails is restarted. */
  onReady?: (() => Promise<void>) | undefined;
  /** Runs when the child is gone or doubted. Nobody may use it until the hook has run again. */
  onLost?: (() => void) | undefined;
  /** It has failed too often and is not started again. Hears why, with its last words. */
  onGivenUp?: ((error: HoneError) => void) | undefined;
}

type SupervisedState = "starting" | "ready" | "restarting" | "failed" | "stopped";

export interface SupervisedStatus {
  state: SupervisedState;
  pid: number | null;
  phase: Health["phase"] | null;
  restarts: number;
  /** Why it last ended. */
  lastFailure: string | null;
}

/** Leaves out what a child wrote before it died, which may hold paths. It is in the server's log. */
export function publicStatus(status: SupervisedStatus): Omit<SupervisedStatus, "lastFailure"> {
  const { lastFailure: _, ...rest } = status;
  return rest;
}

/** A child that is kept alive. */
export interface Supervised {
  /** Resolves once the child is ready. A first start that fails is not tried again: it would fail again. */
  start(): Promise<void>;
  /** Throws the child's `unavailable` error until it is ready and its hook has run. */
  baseURL: () => string;
  /** The same for the hook itself, which has to use the child before others may. */
  rawBaseURL: () => string;
  key: () => string;
  status(): SupervisedStatus;
  /**
   * What the hook did does not hold any more: nobody may use the child until the hook has run again. Where the
   * hook fails, the child is started anew.
   */
  doubt(): void;
  /** Ends a child that hangs in a way that its progress does not show; it is started again. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** About what a first start takes. Clients that asked every second would have used up their retries by then. */
export const firstStartMs = 5_000;
const leastRetryMs = 1_000;
const mostRetryMs = 30_000;
const maxBackoffMs = 10_000;
const maxFastFailures = 5;
/** A child that lived this long had a start that worked. */
const longLifeMs = 10_000;

export function supervise(options: SupervisorOptions): Supervised {
  const { name, log, unavailable } = options;
  const deadlines = { ...defaultDeadlines, ...definedOf(options.deadlines) };
  const askHealth = options.health ?? readHealth;
  const stopping = new AbortController();
  let child: Child | null = null;
  let usable = false;
  let health: Health | null = null;
  let state: SupervisedState = "starting";
  let restarts = 0;
  let lastFailure: string | null = null;
  /** How long the last start took, and when the child that it gave was lost: they tell when the next is due. */
  let startMs = 0;
  let lostAt = 0;
  /** The first start, then the loop that keeps the child alive: `stop` waits for it. */
  let life: Promise<void> = Promise.resolve();

  /** One start up to the point where others may use the child. */
  async function launch(): Promise<Child> {
    await options.beforeStart?.(stopping.signal);
    const startedAt = performance.now();
    const launched = await startChild({
      ...options,
      readyTimeoutMs: deadlines.startingMs,
      onStarting: (now) => {
        if (now.phase !== health?.phase) {
          log.info({ child: name, phase: now.phase }, `the ${name} is ${now.phase}`);
        }
        health = now;
      },
      signal: stopping.signal,
    });
    try {
      child = launched;
      if (stopping.signal.aborted) throw stopped();
      await untilStarted(launched, startedAt);
      await open(launched);
      startMs = performance.now() - startedAt;
      return launched;
    } catch (error) {
      child = null;
      options.onLost?.();
      await launched.kill();
      throw error;
    }
  }

  /** Runs the hook; then others may use the child. */
  async function open(launched: Child): Promise<void> {
    await Promise.race([
      options.onReady?.(),
      launched.exited.then((how) => Promise.reject(unavailableError(how))),
    ]);
    // The child may have been replaced by a new one while the hook ran.
    if (child !== launched || stopping.signal.aborted) return;
    state = "ready";
    usable = true;
  }

  function doubt(): void {
    const doubted = child;
    // A child that is not usable yet has its hook still to come.
    if (!doubted || !usable) return;
    usable = false;
    state = "restarting";
    options.onLost?.();
    open(doubted).catch((error: unknown) => {
      log.error({ child: name, err: error }, `the ${name} could not be made ready again`);
      return child === doubted ? doubted.kill() : undefined;
    });
  }

  async function untilStarted(launched: Child, startedAt: number): Promise<void> {
    for (;;) {
      health = await Promise.race([
        askHealth(launched).catch(() => null),
        launched.exited.then((how) => Promise.reject(unavailableError(how))),
      ]);
      if (health && !isStarting(health.phase)) return;
      if (performance.now() - startedAt > deadlines.startingMs) {
        throw unavailableError(`it was not ready after ${deadlines.startingMs / 1000} s`);
      }
      await delay(100, undefined, { signal: stopping.signal }).catch(() =>
        Promise.reject(stopped()),
      );
    }
  }

  /** Resolves when the child has ended, or was ended because it stood still, to the reason. */
  async function watch(running: Child): Promise<string> {
    const ended = new AbortController();
    const stuck = watchProgress(running, ended.signal);
    const how = await running.exited;
    ended.abort();
    return (await stuck) ?? how;
  }

  /**
   * Kills the child when it has made no progress for too long, and resolves to the reason. Resolves to null if it ended
   * by itself. That `/health` answers proves little, because HTTP stays alive when the compute thread hangs.
   */
  async function watchProgress(running: Child, ended: AbortSignal): Promise<string | null> {
    let last = health ?? { phase: "idle" as const, progress: 0 };
    let answeredAt = performance.now();
    const clocks = new Map<Health["phase"], StillClock>();
    const clockOf = (phase: Health["phase"]): StillClock => {
      const clock = clocks.get(phase) ?? createStillClock();
      clocks.set(phase, clock);
      return clock;
    };
    clockOf(last.phase).hasWork(true);
    for (;;) {
      await delay(options.pollMs ?? 500, undefined, { signal: ended }).catch(() => undefined);
      const now = await askHealth(running, ended).catch(() => null);
      if (ended.aborted) return null;
      const held = (options.maxMemoryBytes && (await residentBytes(running.pid))) || 0;
      if (options.maxMemoryBytes && held > options.maxMemoryBytes) {
        await running.kill();
        return `it held ${mebibytes(held)} MiB, more than the ${mebibytes(options.maxMemoryBytes)} that it may`;
      }
      if (now) {
        health = now;
        answeredAt = performance.now();
        if (now.progress !== last.progress) for (const clock of clocks.values()) clock.moved();
        // Each phase has its own limit, so its own time.
        clockOf(last.phase).hasWork(false);
        clockOf(now.phase).hasWork(true);
        last = now;
      }
      const limitMs = deadlineOf(last.phase);
      const stillMs =
        last.phase === "idle" ? performance.now() - answeredAt : clockOf(last.phase).ms;
      if (stillMs > limitMs) {
        await running.kill();
        const what = now ? "made no progress" : "did not answer";
        return `it ${what} for ${limitMs / 1000} s while ${last.phase}`;
      }
    }
  }

  function deadlineOf(phase: Health["phase"]): number {
    if (phase === "decoding") return deadlines.decodingMs;
    if (phase === "training") return deadlines.trainingMs;
    return isStarting(phase) ? deadlines.startingMs : deadlines.idleMs;
  }

  async function keepAlive(first: Child): Promise<void> {
    let running: Child | null = first;
    let fastFailures = 0;
    let readyAt = performance.now();
    while (!stopping.signal.aborted) {
      if (running) {
        const reason: string = await watch(running);
        child = null;
        usable = false;
        options.onLost?.();
        health = null;
        lostAt = performance.now();
        if (stopping.signal.aborted) return;
        await running.kill();
        if (performance.now() - readyAt > longLifeMs) fastFailures = 0;
        noteFailure(reason);
      }
      if (++fastFailures > maxFastFailures) {
        state = "failed";
        log.error(
          { child: name, lastFailure },
          `the ${name} is given up after ${maxFastFailures} restarts: remove the cause and start this program again`,
        );
        const last = lastFailure?.replace(/\.$/, "") ?? "";
        options.onGivenUp?.(
          unavailableError(
            `it is given up after ${maxFastFailures} restarts. The last time: ${last}`,
          ),
        );
        return;
      }
      state = "restarting";
      restarts++;
      const wait = Math.min((options.backoffMs ?? 500) * 2 ** (fastFailures - 1), maxBackoffMs);
      await delay(wait, undefined, { signal: stopping.signal }).catch(() => undefined);
      if (stopping.signal.aborted) return;
      running = await launch().catch((error: unknown) => {
        if (!stopping.signal.aborted) {
          noteFailure(error instanceof Error ? error.message : String(error));
        }
        return null;
      });
      if (running) {
        readyAt = performance.now();
        log.info({ child: name, pid: running.pid, restarts }, `the ${name} is back`);
      }
    }
  }

  function noteFailure(reason: string): void {
    lastFailure = reason;
    log.error({ child: name, reason }, `the ${name} has failed`);
  }

  function unavailableError(what: string): HoneError {
    return new HoneError(`The ${name} is not available: ${what}.`, { code: unavailable });
  }
  function stopped(): HoneError {
    return unavailableError("the server is stopping");
  }

  function current(isOpen: boolean): Child {
    if (child && isOpen) return child;
    // What the child wrote may hold paths and more, so it is only in the log.
    if (state === "failed") {
      throw unavailableError(
        `it failed ${maxFastFailures} times in a row and is not started again. The server's log says why: remove the cause and start the server again`,
      );
    }
    if (state === "stopped") throw stopped();
    throw new HoneError(`The ${name} is ${state}. Send the request again in a moment.`, {
      code: unavailable,
      retryAfterMs: retryAfterMs(),
    });
  }

  /** SDKs try only a few times, so a try should come when it can succeed. A start may take 1.5 times the last one. */
  function retryAfterMs(): number {
    if (state === "starting") return firstStartMs;
    const due = lostAt + (options.backoffMs ?? 500) + 1.5 * startMs;
    return Math.min(Math.max(due - performance.now(), leastRetryMs), mostRetryMs);
  }

  return {
    async start() {
      const first = launch();
      life = first.then(keepAlive, () => {
        if (!stopping.signal.aborted) state = "failed";
      });
      await first;
    },
    baseURL: () => current(usable).baseURL,
    rawBaseURL: () => current(true).baseURL,
    key: () => current(true).key,
    doubt,
    status: () => ({
      state,
      pid: child?.pid ?? null,
      phase: health?.phase ?? null,
      restarts,
      lastFailure,
    }),
    async kill() {
      await child?.kill();
    },
    async stop() {
      stopping.abort();
      state = "stopped";
      usable = false;
      await child?.stop();
      await life;
    },
  };
}

function isStarting(phase: Health["phase"]): boolean {
  return phase === "starting" || phase === "loading" || phase === "compiling";
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / (1024 * 1024));
}

function definedOf(deadlines: Partial<Deadlines> = {}): Partial<Deadlines> {
  return Object.fromEntries(
    Object.entries(deadlines).filter(([, value]) => value !== undefined),
  ) as Partial<Deadlines>;
}
