import type { AdapterBucket } from "./engines/bucket/adapter-bucket.ts";
import { formatBucketMetrics } from "./engines/bucket/bucket-metrics.ts";
import { engineMetrics, formatPoolMetrics, requestsRunning } from "./engines/engine-metrics.ts";
import type { EnginePool } from "./engines/pool.ts";
import { formatEngineFigures } from "./engines/router-figures.ts";
import type { EngineSleep } from "./engines/vllm/sleep.ts";
import { formatSleep } from "./engines/vllm/sleep-figures.ts";
import { formatGatewayCounters, type GatewayCounters } from "./gateway/counters.ts";

/** The page of `GET /metrics`. */
export async function metricsPage(parts: {
  counters: GatewayCounters;
  engines: Pick<EnginePool, "status" | "liveSet" | "loads">;
  bucket: AdapterBucket | undefined;
  /** The embedded engine's process, if there is one. */
  own: { baseURL: () => string; key: () => string | null } | null;
  /** Other engines. Of theirs only what `hone doctor` has to see is shown. */
  kept: Parameters<typeof requestsRunning>[0];
  joined: { replicas: () => Parameters<typeof requestsRunning>[0] };
  /** Of the engine that sleeps while a step trains, if one does. */
  sleep: EngineSleep | undefined;
}): Promise<string> {
  const { counters, engines, bucket, own, sleep } = parts;
  const ofEngine = own
    ? await engineMetrics(own.baseURL, own.key)
    : await requestsRunning([...parts.kept, ...parts.joined.replicas()]);
  return (
    formatGatewayCounters(counters) +
    formatPoolMetrics(engines.status(), engines.liveSet.current()) +
    formatEngineFigures(engines.loads()) +
    formatBucketMetrics(bucket?.status()) +
    (sleep ? formatSleep(sleep.status()) : "") +
    ofEngine
  );
}
