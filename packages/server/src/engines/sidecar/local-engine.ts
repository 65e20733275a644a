import { join } from "node:path";
import type { HoneError } from "@hone/core";
import { takeOverChildren } from "../../supervise/orphans.ts";
import { createHttpEngine } from "../http-engine.ts";
import type { ServedBaseOnWire } from "../joined/wire.ts";
import { keepRemoteEngine, keepVllm, type KeptEngine } from "../kept-engine.ts";
import { cardsOfReplica } from "../outside.ts";
import type { EnginePool } from "../pool.ts";
import { guardCards } from "../vllm/card-memory.ts";
import { slotsMemory, vllmChild } from "../vllm/child.ts";
import { cardsOf, sequencesOf } from "../vllm/flags.ts";
import { baseBytes, type LocalBase } from "./local-base.ts";
import type { SidecarOptions } from "./sidecar-options.ts";

/** The engine of this machine: a vLLM that is started and kept alive here, or one that others run. */
export function keepLocal(
  options: SidecarOptions & {
    replica: string;
    served: ServedBaseOnWire;
    local: () => LocalBase;
    maxRank: number | null;
    /** Requests that wait for it and come by the proxy. */
    awaited: () => number;
    pool: () => Pick<EnginePool, "admit" | "fence" | "missing">;
    /** A vLLM that is kept alive here does not come back any more. */
    onGivenUp: (error: HoneError) => void;
  },
): KeptEngine & { key: () => string | null } {
  const { engine, dataDir, replica, served, local, pool, log } = options;
  const keeping = { name: replica, pool, log };
  if ("url" in engine) {
    const { url, key, maxSequences } = engine;
    const http = createHttpEngine({ kind: "vllm", baseURL: () => url, key: () => key });
    const kept = keepRemoteEngine({ ...keeping, url, maxSequences, engine: http });
    return { ...kept, key: () => key };
  }
  const { backoffMs, ...given } = engine;
  const cards = cardsOf(given.flags);
  const adapters = (): Pick<Parameters<typeof vllmChild>[0], "maxLoras" | "maxLoraRank"> => ({
    maxLoras: given.maxLoras ?? served.slots,
    maxLoraRank: () => options.maxRank ?? 0,
  });
  const guard = guardCards({
    ...{ device: given.device, flags: given.flags, name: "vLLM" },
    cards: cardsOfReplica(0, cards).split(","),
    needs: () => ({
      ...{ base: baseBytes(local(), served.dtype) / cards, step: 0, engines: 1 },
      slots: slotsMemory({ ...given, ...adapters(), base: local().source, dtype: served.dtype }),
    }),
    tell: (line) => options.tell?.(line),
    log,
  });
  const children = takeOverChildren(dataDir, log);
  const kept = keepVllm({
    ...{ ...keeping, awaitedBeside: options.awaited },
    maxSequences: sequencesOf(given.flags),
    child: {
      ...vllmChild({
        ...given,
        base: local().source,
        servedName: served.name,
        dtype: served.dtype,
        maxModelLen: options.maxModelLen ?? served.maxModelLen,
        ...adapters(),
        memoryShare: () => guard?.share() ?? null,
      }),
      beforeStart: async (signal) => guard?.beforeStart(signal),
      onGivenUp: options.onGivenUp,
      onSpawn: (pid) => children.note(replica, pid),
      logFile: join(dataDir, "logs", `${replica}.log`),
      backoffMs,
    },
  });
  return {
    ...kept,
    async stop() {
      await kept.stop();
      children.clear();
    },
  };
}
