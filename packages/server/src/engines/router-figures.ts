import { type Labelled, metricLines } from "../http/prometheus.ts";
import type { EngineLoad, EngineLoads } from "./engine-loads.ts";
import type { MoveReason, Route } from "./placement.ts";

/** What is shown of one engine. */
export interface EngineSnapshot {
  name: string;
  /** Whether it gets requests: "serving", or why not. */
  traffic: "serving" | "fenced" | "draining";
  rollouts: number;
  inFlight: number;
  waiting: number;
  /** Null where it is not bounded. */
  bound: number | null;
  /** From 0 to 1; null where its metrics say nothing. */
  kvUse: number | null;
  preemptions: number | null;
  busy: number;
  moves: Partial<Record<MoveReason, number>>;
}

export function snapshotOf(
  routes: readonly Route[],
  loads: EngineLoads,
  moves: readonly { engine: string; reason: MoveReason; count: number }[],
): EngineSnapshot[] {
  return routes.map((route) => {
    const { name, rollouts, inFlight, waiting, bound, hint, busy } = loads.of(route);
    const own = moves.filter(({ engine }) => engine === name);
    const { shut } = route;
    return {
      name,
      traffic: shut === null ? "serving" : shut === "draining" ? "draining" : "fenced",
      ...{ rollouts, inFlight, waiting, busy },
      bound: bound?.value ?? null,
      kvUse: hint?.kvUse ?? null,
      preemptions: hint?.preemptions ?? null,
      moves: Object.fromEntries(own.map(({ reason, count }) => [reason, count])),
    };
  });
}

/** As Prometheus text. */
export function formatEngineFigures(engines: readonly EngineSnapshot[]): string {
  const lines: string[] = [];
  const add = (
    name: string,
    type: "gauge" | "counter",
    values: (engine: EngineSnapshot) => readonly Labelled[],
  ): void => {
    const all = engines.flatMap((engine) =>
      values(engine).map(([labels, value]): Labelled => [
        `{engine=${JSON.stringify(engine.name)}${labels}}`,
        value,
      ]),
    );
    lines.push(...metricLines(`hone_engine_${name}`, type, all));
  };
  add("open_rollouts", "gauge", ({ rollouts }) => [["", rollouts]]);
  add("in_flight", "gauge", ({ inFlight }) => [["", inFlight]]);
  add("in_flight_bound", "gauge", ({ bound }) => [["", bound]]);
  add("waiting", "gauge", ({ waiting }) => [["", waiting]]);
  add("kv_use", "gauge", ({ kvUse }) => [["", kvUse]]);
  add("preemptions_total", "counter", ({ preemptions }) => [["", preemptions]]);
  add("busy_total", "counter", ({ busy }) => [["", busy]]);
  add("moves_total", "counter", ({ moves }) =>
    Object.entries(moves).map(([reason, count]) => [`,reason="${reason}"`, count]),
  );
  return `${lines.join("\n")}\n`;
}

/** Weight of the newest interval in the smoothed one. */
const newest = 0.1;

/** A request of the engine has ended. */
export function noteEnd(load: EngineLoad, now: number): void {
  if (load.lastEndAt !== null) {
    const interval = now - load.lastEndAt;
    load.endsEveryMs =
      load.endsEveryMs === null
        ? interval
        : load.endsEveryMs + newest * (interval - load.endsEveryMs);
  }
  load.lastEndAt = now;
}

/** @unit ms */
const leastRetryMs = 1_000;
const mostRetryMs = 30_000;

/** About when half of those that wait will have gone, and not the same moment for all who ask. @unit ms */
export function retryAfterMs({ waiting, endsEveryMs }: EngineLoad): number {
  const halfGone = ((waiting + 1) / 2) * (endsEveryMs ?? leastRetryMs);
  const spread = 1 + Math.random() / 4;
  return Math.min(Math.max(halfGone, leastRetryMs), mostRetryMs) * spread;
}
