import type { EngineInfo } from "@hone/core";
import type { EnginePool } from "../engines/pool.ts";
import { valuesOf } from "../engines/prometheus.ts";
import type { Models } from "../policies/models.ts";
import type { Facts } from "./facts.ts";

/** What is the case in the running server. */
export async function liveFacts(
  parts: Pick<Facts, "given" | "base" | "memory" | "slots" | "bucket"> & {
    url: string;
    models: Pick<Models, "list">;
    modelsInUse: number;
    pool: Pick<EnginePool, "status" | "liveSet">;
    engines: readonly EngineInfo[];
    /** The page of `GET /metrics`. */
    metrics: () => Promise<string>;
  },
): Promise<Omit<Facts, "machine">> {
  const { url, models, modelsInUse, pool, engines, metrics, ...rest } = parts;
  const fences = new Map(pool.status().map((one) => [one.name, one.fences]));
  const ranks = models.list().map(({ lora }) => lora.r);
  const page = await metrics();
  const evicted = valuesOf(page, "hone:kv_histories_evicted_total");
  const [slept, stayedAwake] = valuesOf(page, "hone_engine_sleep_steps_total");
  return {
    ...rest,
    port: Number(new URL(url).port),
    models: {
      ...{ inUse: modelsInUse, highestRank: Math.max(0, ...ranks) },
      live: pool.liveSet.current().adapters.map(({ bytes }) => bytes),
    },
    engines: engines.map(({ name, state, reason, joined }) => ({
      ...{ name, state, reason, joined, fences: fences.get(name) ?? 0 },
    })),
    evicted: evicted.reduce((sum, value) => sum + value, 0),
    sleep: slept === undefined || stayedAwake === undefined ? null : { slept, stayedAwake },
  };
}
