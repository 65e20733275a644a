import { metricLines } from "../../http/prometheus.ts";
import type { SleepStatus } from "./sleep.ts";

/** As Prometheus text. */
export function formatSleep({ state, ...sleep }: SleepStatus): string {
  return `${[
    ...metricLines("hone_engine_asleep", "gauge", [["", state === "awake" ? 0 : 1]]),
    ...metricLines("hone_engine_sleep_waiting", "gauge", [["", sleep.waiting]]),
    ...metricLines("hone_engine_sleep_steps_total", "counter", [
      ['{slept="yes"}', sleep.slept],
      ['{slept="no"}', sleep.stayedAwake],
    ]),
    ...metricLines("hone_engine_asleep_seconds_total", "counter", [["", sleep.asleepSeconds]]),
  ].join("\n")}\n`;
}
