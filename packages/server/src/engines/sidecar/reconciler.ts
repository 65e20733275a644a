import { HoneError } from "@hone/core";
import pLimit, { type LimitFunction } from "p-limit";
import type { Logger } from "pino";
import type { EnginePool } from "../pool.ts";
import { isSameBase, type BaseIdentity } from "../joined/wire.ts";
import type { LiveAnswer, Report, WantedAdapter } from "../joined/wire.ts";
import { badAdapter } from "./adapter-check.ts";
import type { AdapterCache } from "./adapter-cache.ts";

/** Brings the engine to what the server wants of it. */
export interface Reconciler {
  /** What the server wants from now on. */
  take(answer: Extract<LiveAnswer, { known: true }>): void;
  /** Resolves once the engine serves all that is wanted and can be served. Throws where the engine is not there. */
  apply(): Promise<void>;
  /** Makes sure that what is on this disk for the policy is whole; it is fetched anew where it is not. */
  mend(policy: string): Promise<void>;
  /** What the server lets the engine's logprobs differ by; undefined where that follows from the base's type. */
  tolerance(): number | undefined;
  snapshot(): Pick<Report, "generation" | "served" | "refused">;
}

/** How many adapters are fetched at a time. */
const fetches = 4;
const retryMs = 1_000;
const longestReason = 2_000;

export function createReconciler(options: {
  pool: () => Pick<EnginePool, "load" | "unload" | "liveSet" | "answerOf">;
  cache: AdapterCache;
  /** What the engine serves. */
  base: () => BaseIdentity;
  /** Called when what is served or refused may have changed. */
  onChange: () => void;
  /** The engine did not take a load in time, or is away: it has to be looked at, or nothing would try it again. */
  onUnavailable: () => void;
  /** Ends what is tried again. */
  signal: AbortSignal;
  log: Logger;
}): Reconciler {
  const { cache, pool, log } = options;
  let generation = 0;
  /** What the server serves, once it has said so. */
  let base: BaseIdentity | null = null;
  let tolerance: number | null = null;
  let wanted: ReadonlyMap<string, WantedAdapter> = new Map();
  const refused = new Map<string, Report["refused"][number]>();
  /** For which time each policy was loaded. */
  const loadedFor = new Map<string, number>();
  const turns = new Map<string, LimitFunction>();
  const fetching = pLimit(fetches);

  const have = () =>
    new Map(
      pool()
        .liveSet.current()
        .adapters.map((one) => [one.policy, one]),
    );

  /** One policy after another change of the same. What is wanted is looked up when its turn has come. */
  async function settle(policy: string): Promise<void> {
    const turn = turns.get(policy) ?? pLimit(1);
    turns.set(policy, turn);
    await turn(async () => {
      const want = wanted.get(policy);
      const now = have().get(policy);
      const isSame = now?.sha256 === want?.sha256;
      if (isSame && (!want || loadedFor.get(policy) === want.asked)) return;
      if (now) {
        loadedFor.delete(policy);
        await pool()
          .unload(policy)
          .catch((error: unknown) => {
            log.warn({ policy, err: error }, "the engine did not let go of an adapter");
          });
      }
      if (want) await load(want);
    });
    if (turn.activeCount + turn.pendingCount === 0) turns.delete(policy);
  }

  async function load(want: WantedAdapter): Promise<void> {
    const { config: _, asked, ...named } = want;
    const { policy, sha256 } = named;
    try {
      const own = options.base();
      if (base && base.name !== own.name) {
        throw badAdapter(`it is of the base "${base.name}", and the engine serves "${own.name}"`);
      }
      if (base && !isSameBase(base, own)) {
        throw badAdapter(`it is of other files of the base "${own.name}" than the engine serves`);
      }
      const began = performance.now();
      const path = await fetching(() => cache.folderOf(want));
      const tookMs = Math.round(performance.now() - began);
      log.debug({ policy, tookMs }, "the adapter is here and checked");
      // While it was fetched it may have become unwanted.
      if (wanted.get(policy)?.sha256 !== sha256) return;
      await pool().load({ ...named, path });
      loadedFor.set(policy, asked);
      refused.delete(policy);
    } catch (error) {
      const { code, status = 0, message } = error as Partial<HoneError> & Error;
      if (code === "engine_unavailable") {
        options.onUnavailable();
        throw error;
      }
      if (HoneError.isInstance(error) && (code === "connection_failed" || status >= 500)) {
        if (code !== "engine_error" && code !== "disk_full") return later(policy, error);
      }
      log.error({ policy, sha256, err: error }, "an adapter is refused");
      const fault = code === "engine_error" || code === "disk_full" ? "engine" : "adapter";
      refused.set(policy, { policy, sha256, fault, reason: message.slice(0, longestReason) });
    } finally {
      options.onChange();
    }
  }

  /** The server, not the adapter, is at fault. */
  function later(policy: string, error: unknown): void {
    log.warn({ policy, err: error }, "an adapter could not be fetched: trying again");
    const timer = setTimeout(() => {
      if (options.signal.aborted) return;
      settle(policy).catch((cause: unknown) => log.warn({ policy, err: cause }, "not loaded"));
    }, retryMs);
    timer.unref();
  }

  async function apply(): Promise<void> {
    const policies = new Set([...wanted.keys(), ...have().keys()]);
    const results = await Promise.allSettled([...policies].map(settle));
    options.onChange();
    await cache.trim([...wanted.values()]).catch((error: unknown) => {
      log.warn({ err: error }, "the cache of adapters could not be trimmed");
    });
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  return {
    take(answer) {
      ({ generation, base, probeTolerance: tolerance } = answer);
      wanted = new Map(answer.adapters.map((one) => [one.policy, one]));
      // What was refused is tried again: it may have been the way here.
      refused.clear();
    },
    apply,
    async mend(policy) {
      const want = wanted.get(policy);
      if (want) await fetching(() => cache.lookAgain(want));
    },
    tolerance: () => tolerance ?? undefined,
    snapshot: () => ({
      generation,
      served: [...have().values()].map(({ policy, sha256 }) => ({
        ...{ policy, sha256, asked: loadedFor.get(policy) ?? 0 },
        answer: pool().answerOf(policy),
      })),
      refused: [...refused.values()],
    }),
  };
}
