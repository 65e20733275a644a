import type { LiveSet } from "../ports/live-set.ts";
import type { EngineStatus } from "./pool.ts";

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

/** Which engines take traffic, and what they serve, as Prometheus text. */
export function formatPoolMetrics(
  engines: readonly Pick<EngineStatus, "name" | "state" | "fences">[],
  live: Pick<LiveSet, "generation" | "adapters">,
): string {
  const lines: string[] = [];
  const add = (name: string, kind: string, values: [labels: string, value: number][]): void => {
    lines.push(`# TYPE hone_${name} ${kind}`);
    for (const [labels, value] of values) lines.push(`hone_${name}${labels} ${value}`);
  };
  const each = (value: (one: (typeof engines)[number]) => number): [string, number][] =>
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
