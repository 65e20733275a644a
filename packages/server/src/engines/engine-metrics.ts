import { type Labelled, metricLines } from "../http/prometheus.ts";
import type { Engine } from "../ports/engine.ts";
import type { LiveSet } from "../ports/live-set.ts";
import type { EngineStatus } from "./pool.ts";
import { valuesOf } from "./prometheus.ts";

const timeoutMs = 2_000;

/** The embedded engine's own counters as Prometheus text. Empty while the engine is away. */
export async function engineMetrics(
  baseURL: () => string,
  key: () => string | null,
): Promise<string> {
  try {
    const response = await fetch(`${baseURL()}/metrics`, {
      headers: { authorization: `Bearer ${key() ?? ""}` },
      signal: AbortSignal.timeout(timeoutMs),
    });
    return response.ok ? await response.text() : "";
  } catch {
    return "";
  }
}

/**
 * How many requests each of these engines is sampling for now, by its own metrics, as Prometheus text. One that does
 * not tell has no line.
 */
export async function requestsRunning(
  engines: readonly { name: string; engine: Pick<Engine, "metrics"> }[],
): Promise<string> {
  const told = await Promise.all(
    engines.map(async ({ name, engine }): Promise<Labelled[]> => {
      const page = (await engine.metrics?.().catch(() => "")) ?? "";
      const running = valuesOf(page, "vllm:num_requests_running");
      const total = running.reduce((sum, value) => sum + value, 0);
      return running.length === 0 ? [] : [[`{engine=${JSON.stringify(name)}}`, total]];
    }),
  );
  const all = told.flat();
  if (all.length === 0) return "";
  return `${metricLines("hone_engine_requests_running", "gauge", all).join("\n")}\n`;
}

/** Which engines take traffic, and what they serve, as Prometheus text. */
export function formatPoolMetrics(
  engines: readonly Pick<EngineStatus, "name" | "state" | "fences">[],
  live: Pick<LiveSet, "generation" | "adapters">,
): string {
  const lines: string[] = [];
  const add = (name: string, type: "gauge" | "counter", values: Labelled[]) =>
    lines.push(...metricLines(`hone_${name}`, type, values));
  const each = (value: (one: (typeof engines)[number]) => number): Labelled[] =>
    engines.map((one) => [`{engine=${JSON.stringify(one.name)}}`, value(one)]);
  add(
    "engine_serving",
    "gauge",
    each(({ state }) => (state === "serving" ? 1 : 0)),
  );
  add(
    "engine_fenced_total",
    "counter",
    each(({ fences }) => fences),
  );
  add("live_policies", "gauge", [["", live.adapters.length]]);
  add("live_generation", "gauge", [["", live.generation]]);
  return `${lines.join("\n")}\n`;
}
