import type { Engine } from "../ports/engine.ts";
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

/**
 * How many requests each of these engines is sampling for now, by its own metrics, as Prometheus text. One that does
 * not tell has no line.
 */
export async function requestsRunning(
  engines: readonly { name: string; engine: Pick<Engine, "metrics"> }[],
): Promise<string> {
  const lines = await Promise.all(
    engines.map(async ({ name, engine }) => {
      const page = (await engine.metrics?.().catch(() => "")) ?? "";
      const told = [...page.matchAll(/^[\w:]*num_requests_running(?:\{[^}]*\})? ([\d.e+]+)$/gm)];
      if (told.length === 0) return [];
      const sum = told.reduce((total, [, value]) => total + Number(value), 0);
      return [`hone_engine_requests_running{engine=${JSON.stringify(name)}} ${sum}\n`];
    }),
  );
  const all = lines.flat();
  return all.length === 0 ? "" : `# TYPE hone_engine_requests_running gauge\n${all.join("")}`;
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
