import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import type { Engine, EngineChunk, EngineRequest } from "../ports/engine.ts";
import { noteAwaited } from "./awaited.ts";
import { brokenStream, isEmptyAnswer } from "./engine-errors.ts";
import {
  createEngineLoads,
  hasCapacity,
  noteAwaiting,
  stallOf,
  type EngineLoad,
} from "./engine-loads.ts";
import { createPlacement, type Placed, type Route, type Seat } from "./placement.ts";
import { noteEnd, retryAfterMs, snapshotOf, type EngineSnapshot } from "./router-figures.ts";

/** An engine for one request. */
export interface EngineLease {
  replica: string;
  engine: Engine;
  release: () => void;
}

/** Which engine a request goes to, and when. Which engines there are, and what they serve, is the pool's to say. */
export interface EngineRouter {
  /**
   * Samples on the engine that the request's rollout sticks to, else on the least loaded one. Waits while that engine
   * has as many requests as it may have; throws `engine_busy` where too many wait already, or after too long a wait.
   * An engine that turns out to be away before it has sampled anything is passed over for another.
   */
  generate(request: EngineRequest): AsyncIterable<EngineChunk>;
  /** The least loaded engine that may have requests for the policy, at once. Throws why there is none. */
  lease(policy: string): EngineLease;
  rolloutEnded(rollout: string): void;
  /** Which engines may have requests has changed: those that wait look again. */
  changed(): void;
  /** Reads the engines' metrics, and lets requests through that may go now. To be called every second. */
  tick(): Promise<void>;
  /** What `/metrics` and `/health` show. */
  figures(): EngineSnapshot[];
}

export interface RouterOptions {
  /** All engines, as they stand to requests for a policy; "" for one that every engine has. */
  routes: (policy: string) => readonly Route[];
  /** What is thrown where no route is open. */
  noneOpen: () => unknown;
  /** `--max-num-seqs` of an engine, where it is known. @default 256 */
  maxSequences?: ((name: string) => number | undefined) | undefined;
  /** An engine is stuck, or answers with nothing: it must not have requests until it has been looked at. */
  distrust?: ((name: string, why: string) => void) | undefined;
  /** How long a request waits for its engine. @unit ms @default 300000 */
  waitMs?: number | undefined;
  /** @default a clock that never goes back @unit ms */
  now?: (() => number) | undefined;
  log: Logger;
}

/** A request's place on an engine. */
interface Taken extends EngineLease {
  load: EngineLoad;
  seat: Seat | null;
}

interface Waiter {
  request: EngineRequest;
  avoid: ReadonlySet<string>;
  /** The engine whose queue it is counted in. */
  load: EngineLoad;
  settle: (outcome: Taken | { error: unknown }) => void;
}

/** How long an engine that was found away gets no new rollouts, unless all are. The pool fences it meanwhile. */
const suspectMs = 2_000;
const defaultWaitMs = 300_000;

export function createEngineRouter(options: RouterOptions): EngineRouter {
  const { log } = options;
  const now = options.now ?? (() => performance.now());
  const waitMs = options.waitMs ?? defaultWaitMs;
  const loads = createEngineLoads({ ...options, now });
  const placement = createPlacement({ loads, now });
  /** First come, first served, for each engine. */
  const waiters = new Set<Waiter>();

  function placed(
    { model, n, affinity = null }: EngineRequest,
    avoid: ReadonlySet<string>,
  ): Placed {
    const request = { policy: model, sequences: n, affinity };
    const found = placement.place(request, options.routes(model), avoid);
    if (!found) throw options.noneOpen();
    return found;
  }

  function take({ route, load, seat }: Placed, sequences: number): Taken {
    load.inFlight += sequences;
    if (seat) seat.turns++;
    let released = false;
    return {
      replica: route.name,
      engine: route.engine,
      ...{ load, seat },
      release() {
        if (released) return;
        released = true;
        load.inFlight -= sequences;
        if (seat) {
          seat.turns--;
          seat.usedAt = now();
        }
        noteEnd(load, now());
        letThrough(load);
      },
    };
  }

  async function acquire(request: EngineRequest, avoid: ReadonlySet<string>): Promise<Taken> {
    // It may have left while its prompt was rendered: it would wait in line until its turn came.
    request.signal.throwIfAborted();
    const found = placed(request, avoid);
    const { load } = found;
    if (load.waiting === 0 && hasCapacity(load, request.n)) return take(found, request.n);
    if (load.waiting >= longestQueue(load)) throw busy(load, "as many wait for it as may");
    return waitFor(request, avoid, load);
  }

  function waitFor(
    request: EngineRequest,
    avoid: ReadonlySet<string>,
    load: EngineLoad,
  ): Promise<Taken> {
    return new Promise((resolve, reject) => {
      const { signal } = request;
      const waiter: Waiter = {
        ...{ request, avoid, load },
        settle(outcome) {
          waiters.delete(waiter);
          waiter.load.waiting--;
          clearTimeout(timer);
          signal.removeEventListener("abort", givenUp);
          if ("error" in outcome) reject(outcome.error);
          else resolve(outcome);
        },
      };
      const givenUp = (): void => waiter.settle({ error: signal.reason });
      const timer = setTimeout(() => {
        waiter.settle({ error: busy(waiter.load, `this one waited ${waitMs / 1000} s`) });
      }, waitMs);
      signal.addEventListener("abort", givenUp, { once: true });
      load.waiting++;
      waiters.add(waiter);
    });
  }

  /** Gives those that wait what has become free, at one engine or at all. They may have to go elsewhere by now. */
  function letThrough(only?: EngineLoad): void {
    const full = new Set<EngineLoad>();
    for (const waiter of waiters) {
      if (only && waiter.load !== only) continue;
      if (only && !hasCapacity(only, waiter.request.n)) return;
      let found: Placed;
      try {
        found = placed(waiter.request, waiter.avoid);
      } catch (error) {
        waiter.settle({ error });
        continue;
      }
      const { load } = found;
      if (load !== waiter.load) {
        waiter.load.waiting--;
        load.waiting++;
        waiter.load = load;
      }
      // A large one that does not fit yet is not overtaken by small ones for ever.
      if (full.has(load) || !hasCapacity(load, waiter.request.n)) full.add(load);
      else waiter.settle(take(found, waiter.request.n));
    }
  }

  function busy(load: EngineLoad, why: string): HoneError {
    load.busy++;
    const afterMs = retryAfterMs(load);
    return new HoneError(
      `The engine works on as many requests as its memory holds, and ${why}. Send the request again in ` +
        `${Math.ceil(afterMs / 1000)} s, or run fewer rollouts at a time.`,
      { code: "engine_busy", retryAfterMs: afterMs },
    );
  }

  /** The rollout's next turn goes elsewhere, and so do new rollouts for a moment. */
  function noteFailure({ load, seat }: Taken, error: unknown): void {
    if (!HoneError.isInstance(error)) return;
    if (error.code === "engine_unavailable") load.suspectUntil = now() + suspectMs;
    if (seat && seat.load === load && isOfEngine(error)) seat.failed = true;
  }

  return {
    async *generate(request) {
      const tried = new Set<string>();
      for (;;) {
        const lease = await acquire(request, tried);
        request.onEngine?.(lease.replica);
        let hasBegun = false;
        const cut = new AbortController();
        try {
          const signal = AbortSignal.any([request.signal, cut.signal]);
          const chunks = lease.engine.generate({ ...request, signal });
          const note = (is: boolean): void => noteAwaiting(lease.load, cut, is);
          for await (const chunk of noteAwaited(chunks, note)) {
            hasBegun = true;
            // Its metrics may be slow, or tell nothing; a token is a sign of life.
            lease.load.still.moved();
            yield chunk;
          }
          return;
        } catch (cause) {
          if (request.signal.aborted) throw cause;
          const error = cut.signal.aborted ? brokenStream(cause) : cause;
          noteFailure(lease, error);
          if (isEmptyAnswer(error)) options.distrust?.(lease.replica, (error as Error).message);
          tried.add(lease.replica);
          const others = options
            .routes(request.model)
            .filter(({ shut, name }) => shut === null && !tried.has(name));
          if (hasBegun || !isPassable(error) || others.length === 0) throw error;
          log.warn({ engine: lease.replica, err: error }, "the request goes to another engine");
        } finally {
          lease.release();
        }
      }
    },

    lease(policy) {
      const [first, ...rest] = options.routes(policy).filter(({ shut }) => shut === null);
      if (!first) throw options.noneOpen();
      const route = placement.least([first, ...rest]);
      return take({ route, load: loads.of(route), seat: null }, 1);
    },

    rolloutEnded: (rollout) => placement.end(rollout),
    changed: () => letThrough(),

    async tick() {
      const routes = options.routes("");
      await loads.read(routes);
      for (const route of routes) {
        const load = loads.of(route);
        const isFenced = route.shut === "fenced";
        load.fencedSince = isFenced ? (load.fencedSince ?? now()) : null;
        const why = stallOf(load, now());
        if (why === null) continue;
        // One that is fenced already is left alone, but not what hangs in it: that would wait without a limit.
        if (!isFenced) options.distrust?.(route.name, why);
        for (const cut of load.awaited) cut.abort();
      }
      placement.sweep();
      letThrough();
    },

    figures: () => snapshotOf(options.routes(""), loads, placement.moves()),
  };
}

/** How many may wait for an engine: with four times what it works on, the last one waits for four turns. */
function longestQueue({ bound }: EngineLoad): number {
  return bound === null ? Infinity : Math.max(64, 4 * bound.value);
}

/** Whether the engine is at fault, and not the request. */
function isOfEngine({ code }: HoneError): boolean {
  return code === "engine_unavailable" || code === "engine_error" || code === "policy_not_found";
}

/** Whether another engine may do what this one could not, as nothing was sampled yet. */
function isPassable(error: unknown): boolean {
  return (
    HoneError.isInstance(error) &&
    (error.code === "engine_unavailable" ||
      error.code === "policy_not_found" ||
      isEmptyAnswer(error))
  );
}
