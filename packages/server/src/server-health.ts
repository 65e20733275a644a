import type { Health } from "@hone/core";
import type { EnginePool, EngineStatus } from "./engines/pool.ts";

type Component = Health["components"][string];

/** Engines as whoever watches their processes sees them, with what the pool and the router know. */
export function engineComponents(
  watched: readonly (readonly [name: string, status: Component])[],
  engines: Pick<EnginePool, "loads" | "status">,
): Health["components"] {
  const loads = new Map(engines.loads().map(({ name, ...load }) => [name, load]));
  const pool = new Map(engines.status().map((one) => [one.name, one]));
  return Object.fromEntries(
    watched.map(([name, one]) => [name, withFence({ ...one, ...loads.get(name) }, pool.get(name))]),
  );
}

/** An engine that answers, and is kept from traffic until it serves what is live. */
function withFence(watched: Component, pool: EngineStatus | undefined): Component {
  const isOver = watched.state === "failed" || watched.state === "stopped";
  if (isOver || !pool || pool.state === "serving" || pool.reason === null) return watched;
  return { ...watched, state: "fenced", reason: pool.reason };
}

export function overall(states: readonly string[]): Health["status"] {
  if (states.every((state) => state === "ready")) return "ok";
  return states.every((state) => state === "ready" || state === "starting")
    ? "starting"
    : "degraded";
}
