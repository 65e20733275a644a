import { type Labelled, metricLines } from "../http/prometheus.ts";
import type { SplitReason } from "../conversation/prompt.ts";

/** What `/metrics` and the dashboard show of the gateway. */
export interface GatewayCounters {
  requests: number;
  /** Completions of rollouts that were recorded, and of those the ones that went out whole. */
  recorded: number;
  delivered: number;
  /** Completions that went out and were asked for again: the client had not received them. */
  retried: number;
  promptTokens: number;
  sampledTokens: number;
  /** Turns that could not extend an earlier completion, by reason. */
  splits: Record<SplitReason, number>;
  /** Streams that ended in an error event. */
  brokenStreams: number;
  /** Requests whose client went away. */
  abandoned: number;
}

export function createGatewayCounters(): GatewayCounters {
  return {
    requests: 0,
    recorded: 0,
    delivered: 0,
    retried: 0,
    promptTokens: 0,
    sampledTokens: 0,
    splits: { edited_history: 0, cannot_bridge: 0, tools_changed: 0, new_conversation: 0 },
    brokenStreams: 0,
    abandoned: 0,
  };
}

/** The counters as Prometheus text. */
export function formatGatewayCounters(counters: GatewayCounters): string {
  const lines: string[] = [];
  const add = (name: string, values: Labelled[]) =>
    lines.push(...metricLines(`hone_gateway_${name}_total`, "counter", values));
  // The name that dashboards know.
  add("calls", [["", counters.requests]]);
  add("completions_recorded", [["", counters.recorded]]);
  add("completions_delivered", [["", counters.delivered]]);
  add("completions_retried", [["", counters.retried]]);
  add("prompt_tokens", [["", counters.promptTokens]]);
  add("sampled_tokens", [["", counters.sampledTokens]]);
  add("broken_streams", [["", counters.brokenStreams]]);
  add("abandoned_calls", [["", counters.abandoned]]);
  add(
    "prompt_splits",
    Object.entries(counters.splits).map(([reason, value]) => [`{reason="${reason}"}`, value]),
  );
  return `${lines.join("\n")}\n`;
}
