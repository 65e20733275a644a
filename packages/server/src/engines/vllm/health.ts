import type { Child } from "../../supervise/child.ts";
import type { Health } from "../../supervise/health.ts";
import { sumOf } from "../prometheus.ts";

const answerTimeoutMs = 5_000;

/**
 * How far vLLM is, for `supervise`. Its own `/health` says only that it answers; its metrics say whether it has
 * requests and how many steps it has done, so that one that stands still over a request can be told from one
 * that works. What it is at before it is ready comes from `hone_vllm.py`.
 */
export async function readVllmHealth(
  child: Pick<Child, "baseURL">,
  signal?: AbortSignal,
): Promise<Health> {
  const timeout = AbortSignal.timeout(answerTimeoutMs);
  const response = await fetch(`${child.baseURL}/metrics`, {
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  });
  if (!response.ok) throw new Error(`vLLM answered GET /metrics with ${response.status}`);
  const page = await response.text();
  const requests = sumOf(page, "vllm:num_requests_running");
  return {
    phase: requests > 0 ? "decoding" : "idle",
    progress: sumOf(page, "vllm:iteration_tokens_total_count"),
  };
}

/**
 * The same, where its starter knows how many requests wait for it. vLLM's own number is the core's, from its last step: a
 * core that stops between two answers leaves a 0, and new requests wait for ever.
 */
export function vllmHealthBeside(awaited: () => number): typeof readVllmHealth {
  return async (child, signal) => {
    const health = await readVllmHealth(child, signal);
    return health.phase === "idle" && awaited() > 0 ? { ...health, phase: "decoding" } : health;
  };
}
