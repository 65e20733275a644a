import type { Engine, EngineChunk, EngineRequest } from "../ports/engine.ts";

/** An engine that may be given a request. */
export interface Routable {
  name: string;
  engine: Engine;
}

/** An engine for one request. */
export interface EngineLease {
  replica: string;
  engine: Engine;
  release: () => void;
}

/** Which engine a request goes to, of those that may have it. Which those are is the pool's to say. */
export interface EngineRouter {
  /** The one with the fewest leases; the first where several have as few. `able` is not empty. */
  lease(able: readonly [Routable, ...Routable[]]): EngineLease;
  /** Samples on one of the engines that `able` gives, and throws what `able` throws. */
  generate(
    request: EngineRequest,
    able: () => readonly [Routable, ...Routable[]],
  ): AsyncIterable<EngineChunk>;
}

export function createEngineRouter(): EngineRouter {
  const leases = new Map<string, number>();
  const countOf = ({ name }: Routable): number => leases.get(name) ?? 0;

  function lease([first, ...rest]: readonly [Routable, ...Routable[]]): EngineLease {
    const chosen = rest.reduce(
      (least, one) => (countOf(one) < countOf(least) ? one : least),
      first,
    );
    const { name, engine } = chosen;
    leases.set(name, countOf(chosen) + 1);
    let released = false;
    return {
      replica: name,
      engine,
      release() {
        if (!released) leases.set(name, countOf(chosen) - 1);
        released = true;
      },
    };
  }

  return {
    lease,

    async *generate(request, able) {
      const { engine, release } = lease(able());
      try {
        yield* engine.generate(request);
      } finally {
        release();
      }
    },
  };
}
