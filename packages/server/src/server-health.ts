import { basename } from "node:path";
import type { Health } from "@hone/core";
import type { EnginePool, EngineStatus } from "./engines/pool.ts";
import type { Quantize } from "./ports/trainer.ts";
import type { RendererInfo } from "./ports/renderer.ts";

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

/** What was taken for the base, as the renderer's component tells it. */
export function summaryOf({
  renderer,
  memory,
  quantize,
}: {
  renderer: RendererInfo;
  memory?: { dtype: string };
  quantize?: Quantize | undefined;
}): Record<string, unknown> {
  const { name, bridges, tools, plainTexts } = renderer;
  const dtype = memory && { dtype: memory.dtype };
  return { name, bridges, tools, plainTexts, ...dtype, ...(quantize && { quantize }) };
}

/** The base's name: the hub id, or the name of the folder. */
export function baseNameOf(base: string): string {
  return /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".") ? base : basename(base);
}
