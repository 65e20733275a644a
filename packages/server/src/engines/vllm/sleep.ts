import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import type { Trainer } from "../../ports/trainer.ts";
import type { EnginePool } from "../pool.ts";
import { sleepOf, wakeOf } from "./sleep-calls.ts";

/**
 * A vLLM that leaves its card to the trainer while a step trains:
 *
 *   awake ── a step begins, and nobody samples ──▶ falling asleep ──▶ asleep
 *     ▲                                                  │ fails        │ the step is over
 *     └── it answers the probe of each policy ── waking ◀┴──────────────┘
 *
 * What is asked for meanwhile waits. An engine that cannot be woken is ended and started again, which is the supervisor's
 * to do; requests are then refused with 503 as during any restart.
 */
export interface EngineSleep {
  /** The pool as traffic and policies see it: what is asked for while the engine sleeps waits until it is awake. */
  guard(pool: EnginePool): EnginePool;
  /** The trainer whose steps it sleeps through. */
  beside(trainer: Trainer): Trainer;
  /** Wakes the engine at this address if it is the one that sleeps, then has it admitted. Runs before it takes traffic. */
  admit(baseURL: string, key: string, admit: () => Promise<void>): Promise<void>;
  /** The engine is gone, or is admitted again: what waits for one that sleeps is refused as during any restart. */
  lost(): void;
  /** To be awaited before the engine is started anew: a step may have its memory. */
  untilStepOver(signal: AbortSignal): Promise<void>;
  status(): SleepStatus;
}

export interface SleepStatus {
  state: "awake" | "falling asleep" | "asleep" | "waking";
  /** Steps that it slept through, and those that began while rollouts were under way. */
  slept: number;
  stayedAwake: number;
  /** Requests and publications that wait for it. */
  waiting: number;
  asleepSeconds: number;
}

export interface EngineSleepOptions {
  /** Of the engine in the pool. */
  name: string;
  pool: () => Pick<EnginePool, "fence" | "recheck" | "loads">;
  /** Where it is and its key. Throws while it takes no traffic. */
  engine: () => { baseURL: string; key: string };
  /** Has the engine admitted again; ends it where that fails. */
  doubt: () => void;
  /** What is free on the tightest of its cards; null where nobody says. @unit bytes */
  freeBytes: () => Promise<number | null>;
  /** How long a request waits. @unit ms @default 300000 */
  waitMs?: number | undefined;
  /** How long the trainer's memory may take to become free. @unit ms @default 60000 */
  freeMs?: number | undefined;
  pollMs?: number | undefined;
  log: Logger;
}

const defaultWaitMs = 300_000;
const defaultFreeMs = 60_000;
/** What waits past this is refused: as many as an engine works on in four turns. */
const mostWaiting = 1024;
const retryAfterMs = 5_000;

export function createEngineSleep(options: EngineSleepOptions): EngineSleep {
  const { name, pool, log, waitMs = defaultWaitMs, freeMs = defaultFreeMs } = options;
  let state: SleepStatus["state"] = "awake";
  let [slept, stayedAwake, waiting, asleepMs, sleptAt] = [0, 0, 0, 0, 0];
  /** The process that sleeps, by its address, and what of its card it gave away. */
  let sleeper: { baseURL: string; freed: number } | null = null;
  /** Requests and publications that are under way or wait. */
  let asked = 0;
  /** Steps of the trainer that are under way. */
  let steps = 0;
  /** The steps that are under way may have taken what the engine gave away. */
  let gaveAway = false;
  let stepOver: () => void = () => undefined;
  let over: Promise<void> = Promise.resolve();
  let nowAwake: () => void = () => undefined;
  let awake: Promise<void> = Promise.resolve();
  /** One change of state at a time. */
  const turn = pLimit(1);
  /** What an admission asks for itself must not wait for its own end. */
  const admitting = new AsyncLocalStorage<true>();

  function open(): void {
    if (state === "awake") return;
    if (sleptAt > 0) asleepMs += performance.now() - sleptAt;
    sleptAt = 0;
    state = "awake";
    sleeper = null;
    nowAwake();
  }

  async function fallAsleep(): Promise<void> {
    if (state !== "awake") return;
    let engine: { baseURL: string; key: string };
    try {
      engine = options.engine();
    } catch {
      return; // It is away, and takes nothing of its card.
    }
    const rollouts =
      pool()
        .loads()
        .find((one) => one.name === name)?.rollouts ?? 0;
    if (asked > 0 || rollouts > 0) {
      stayedAwake++;
      log.debug(
        { engine: name, asked, rollouts },
        "the engine stays awake: rollouts are under way",
      );
      return;
    }
    awake = new Promise((resolve) => void (nowAwake = resolve));
    state = "falling asleep";
    sleptAt = performance.now();
    const sleeps = { baseURL: engine.baseURL, freed: 0 };
    sleeper = sleeps;
    pool().fence(name);
    try {
      const before = await options.freeBytes();
      await sleepOf(engine);
      const after = await options.freeBytes();
      // It may have died meanwhile.
      if (sleeper !== sleeps) return;
      if (before !== null && after !== null) sleeps.freed = Math.max(0, after - before);
      gaveAway = true;
      slept++;
      state = "asleep";
      const tookMs = Math.round(performance.now() - sleptAt);
      log.info(
        { engine: name, freed: sleeps.freed, tookMs },
        "the engine sleeps while a step trains",
      );
    } catch (error) {
      log.error(
        { engine: name, err: error },
        "the engine did not fall asleep: it is made ready again",
      );
      await wake();
    }
  }

  /** Resolves once it is awake, or on its way to be started anew. */
  async function wake(): Promise<void> {
    if (state === "awake") return;
    state = "waking";
    try {
      options.engine();
      options.doubt();
    } catch {
      open(); // It has died, and is started anew.
    }
    await awake;
  }

  async function untilFree(wanted: number): Promise<void> {
    const until = performance.now() + freeMs;
    for (;;) {
      const free = await options.freeBytes();
      if (free === null || free >= wanted) return;
      if (performance.now() >= until) {
        throw new HoneError(
          `The engine cannot wake: ${free} bytes of its card are free, and it gave ${wanted} away. nvidia-smi names the processes that hold the rest.`,
          { code: "engine_unavailable" },
        );
      }
      await delay(options.pollMs ?? 500);
    }
  }

  async function untilAwake(what: string, signal?: AbortSignal): Promise<void> {
    if (state === "awake" || admitting.getStore()) return;
    if (waiting >= mostWaiting) throw tooLong(`${waiting} requests wait for it already`);
    waiting++;
    const ended = new AbortController();
    try {
      const both = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal;
      const late = delay(waitMs, true, { signal: both, ref: false });
      const isLate = await Promise.race([awake.then(() => false), late]);
      if (isLate) throw tooLong(`${what} has waited for ${waitMs / 1000} s`);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      ended.abort();
      waiting--;
    }
  }

  async function counted<T>(work: () => Promise<T>): Promise<T> {
    asked++;
    try {
      return await work();
    } finally {
      asked--;
    }
  }

  return {
    guard: (guarded) => ({
      ...guarded,
      async *generate(request) {
        asked++;
        try {
          await untilAwake("this one", request.signal);
          yield* guarded.generate(request);
        } finally {
          asked--;
        }
      },
      info: () => untilAwake("this one").then(() => guarded.info()),
      load: (adapter) =>
        counted(async () => {
          // A publication is no request: it waits for as long as a step takes.
          if (!admitting.getStore()) await awake;
          await guarded.load(adapter);
        }),
      unload: (policy) =>
        counted(async () => {
          await untilAwake("the unloading of a policy");
          await guarded.unload(policy);
        }),
    }),

    beside: (trainer) => ({
      ...trainer,
      async train(request) {
        if (request.route !== undefined && request.route !== "train") return trainer.train(request);
        if (steps++ === 0) over = new Promise((resolve) => void (stepOver = resolve));
        const began = performance.now();
        await turn(fallAsleep);
        if (state === "asleep") {
          const seconds = (performance.now() - began) / 1000;
          request.onEvent({ event: "stage", stage: "sleep", seconds });
        }
        try {
          return await trainer.train(request);
        } finally {
          if (--steps === 0) {
            gaveAway = false;
            stepOver();
          }
          // Nobody waits for it here: who needs the engine does.
          void turn(async () => {
            if (state === "asleep") await wake();
          });
        }
      },
    }),

    async admit(baseURL, key, admit) {
      try {
        if (sleeper?.baseURL === baseURL) {
          await untilFree(sleeper.freed);
          await wakeOf({ baseURL, key });
          await pool().recheck(name);
        }
        await admitting.run(true, admit);
      } finally {
        // Where it failed, it is ended and started anew.
        open();
      }
    },

    lost() {
      // While it is being woken, it was doubted in order to be admitted.
      if (state !== "waking") open();
    },

    async untilStepOver(signal) {
      if (!gaveAway) return;
      const gone = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      });
      await Promise.race([over, gone]);
    },

    status: () => ({
      ...{ state, slept, stayedAwake, waiting },
      asleepSeconds: (asleepMs + (sleptAt > 0 ? performance.now() - sleptAt : 0)) / 1000,
    }),
  };
}

function tooLong(why: string): HoneError {
  return new HoneError(
    `The engine sleeps while a step trains, and ${why}. Send the request again in ${retryAfterMs / 1000} s, or start the server without --sleep.`,
    { code: "engine_busy", retryAfterMs },
  );
}
