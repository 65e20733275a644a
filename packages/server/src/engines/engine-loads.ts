import type { Logger } from "pino";
import type { Engine } from "../ports/engine.ts";
import { createStillClock, type StillClock } from "../supervise/still-clock.ts";
import { createInFlightBound, type EngineHint, type InFlightBound } from "./in-flight-bound.ts";
import { sumOf, valuesOf } from "./prometheus.ts";

/** What the router knows of one engine besides whether it serves. */
export interface EngineLoad {
  readonly name: string;
  /** Open rollouts that stick to it. */
  rollouts: number;
  /** Sequences that it samples for this server. */
  inFlight: number;
  /** Requests that wait in this server until it may have them. */
  waiting: number;
  /** Null where the engine has a queue of its own that is not to be bounded: the embedded one. */
  bound: InFlightBound | null;
  /** What the bound began with, as far as that was known. */
  maxSequences: number | undefined;
  /** What its metrics said last; null where they cannot be read. */
  hint: EngineHint | null;
  /** Whether it gave up keys and values between the last two readings. */
  preempting: boolean;
  /** How many rollouts may still leave it before the next reading because its KV memory is full. */
  kvMovesLeft: number;
  /** Failed a moment ago: new rollouts go elsewhere until then. @unit ms of the router's clock */
  suspectUntil: number;
  /** The time between two ends of requests, smoothed, and the last end. @unit ms */
  endsEveryMs: number | null;
  lastEndAt: number | null;
  /** Refused with 429. */
  busy: number;
  /** How many steps it has done, as it said last; null where it does not say. */
  steps: number | null;
  /** Of requests that wait for its next token each one's, which breaks it off. One whose reader does not read waits for none. */
  readonly awaited: Set<AbortController>;
  /** Runs while something waits for it. A step clears it, and a token. */
  readonly still: StillClock;
  /** Since when it has been fenced; null where it is not. @unit ms of the router's clock */
  fencedSince: number | null;
}

/** Of an engine whose own supervisor looks after it, that one acts first: after 60 s. */
const stallMs = 90_000;

/**
 * Why it is taken for stuck; null where it is not. Its HTTP server may answer all the same. One that does not tell of its steps
 * may be at a long answer, but not one that nobody could make ready again in all that time.
 */
export function stallOf(load: EngineLoad, now: number): string | null {
  const { awaited, steps, fencedSince, still } = load;
  const ms = steps === null ? Math.min(still.ms, now - (fencedSince ?? now)) : still.ms;
  if (awaited.size === 0 || ms < stallMs) return null;
  return `It has made no progress for ${stallMs / 1000} s, with ${awaited.size} under way.`;
}

/** A request begins to wait for its next token, or waits for none any more. */
export function noteAwaiting(load: EngineLoad, cut: AbortController, isAwaited: boolean): void {
  if (isAwaited) load.awaited.add(cut);
  else load.awaited.delete(cut);
  load.still.hasWork(load.awaited.size > 0);
}

/** A full KV memory counts as so many rollouts. */
const kvWeight = 8;

/** Everything in one number, of which only the order matters: rollouts, requests, and the KV memory in use. */
export function loadOf({ rollouts, inFlight, waiting, hint }: EngineLoad): number {
  const told = hint ? hint.waiting + kvWeight * hint.kvUse : 0;
  return rollouts + inFlight + waiting + told;
}

export function hasCapacity({ bound, inFlight }: EngineLoad, sequences: number): boolean {
  return bound === null || inFlight === 0 || inFlight + sequences <= bound.value;
}

export interface EngineLoads {
  of(engine: { name: string; engine: Pick<Engine, "kind"> }): EngineLoad;
  /** Those that were asked for, in that order. */
  all(): EngineLoad[];
  /** Reads the metrics of these engines. What cannot be read is a warning, and then counts as unknown. */
  read(engines: readonly { name: string; engine: Engine }[]): Promise<void>;
}

export function createEngineLoads(options: {
  /** `--max-num-seqs` of an engine, where it is known. */
  maxSequences?: ((name: string) => number | undefined) | undefined;
  now: () => number;
  log: Logger;
}): EngineLoads {
  const loads = new Map<string, EngineLoad>();
  const silent = new Set<string>();

  function of({ name, engine }: { name: string; engine: Pick<Engine, "kind"> }): EngineLoad {
    const known = loads.get(name);
    if (known) return known;
    const maxSequences = options.maxSequences?.(name);
    const load: EngineLoad = {
      ...{ name, rollouts: 0, inFlight: 0, waiting: 0, busy: 0, maxSequences },
      bound: engine.kind === "embedded" ? null : createInFlightBound(maxSequences),
      ...{ hint: null, preempting: false, kvMovesLeft: 0 },
      ...{ suspectUntil: 0, endsEveryMs: null, lastEndAt: null },
      ...{ steps: null, awaited: new Set<AbortController>(), fencedSince: null },
      still: createStillClock(options.now),
    };
    loads.set(name, load);
    return load;
  }

  async function readOne(route: { name: string; engine: Engine }): Promise<void> {
    const load = of(route);
    const maxSequences = options.maxSequences?.(load.name);
    if (load.bound && maxSequences !== load.maxSequences) {
      // It has just said so, or is another process by now.
      load.bound = createInFlightBound(maxSequences);
      load.maxSequences = maxSequences;
    }
    if (!load.bound || !route.engine.metrics) return;
    let hint: EngineHint;
    let steps: number | null;
    try {
      const page = await route.engine.metrics();
      hint = hintOf(page);
      steps = stepsOf(page);
      silent.delete(load.name);
    } catch (error) {
      load.hint = null;
      load.preempting = false;
      if (silent.has(load.name)) return;
      silent.add(load.name);
      options.log.warn(
        { engine: load.name, err: error },
        "the engine's metrics cannot be read: requests go on, and how full its KV memory is stays unknown",
      );
      return;
    }
    // A restarted engine begins to count anew.
    const preempted = load.hint !== null && hint.preemptions > load.hint.preemptions;
    if (steps !== load.steps) load.still.moved();
    load.steps = steps;
    load.hint = hint;
    load.preempting = preempted;
    load.kvMovesLeft = Math.max(1, Math.ceil(load.rollouts / 8));
    const wanted = load.waiting > 0 || load.inFlight >= load.bound.value;
    load.bound.read(hint, { inFlight: load.inFlight, wanted, preempted });
  }

  return {
    of,
    all: () => [...loads.values()],
    async read(engines) {
      for (const { name, rollouts, inFlight, waiting } of loads.values()) {
        if (engines.some((one) => one.name === name) || rollouts + inFlight + waiting > 0) continue;
        // It has left the pool.
        loads.delete(name);
        silent.delete(name);
      }
      await Promise.all(engines.map(readOne));
    },
  };
}

function stepsOf(page: string): number | null {
  const name = "vllm:iteration_tokens_total_count";
  return valuesOf(page, name).length > 0 ? sumOf(page, name) : null;
}

/** vLLM's names; throws where the page is another server's. */
function hintOf(page: string): EngineHint {
  const use = valuesOf(page, "vllm:kv_cache_usage_perc");
  if (use.length === 0) throw new Error("the page has no vllm:kv_cache_usage_perc");
  return {
    waiting: sumOf(page, "vllm:num_requests_waiting"),
    kvUse: Math.max(...use),
    preemptions: sumOf(page, "vllm:num_preemptions_total"),
  };
}
