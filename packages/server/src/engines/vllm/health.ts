import type { Child } from "../../supervise/child.ts";
import type { Health } from "../../supervise/health.ts";
import { sumOf } from "../prometheus.ts";
import { readMetrics, type MetricsPage } from "./metrics-page.ts";

/**
 * How far vLLM is, for `supervise`. Its own `/health` says only that it answers; its metrics say whether it has
 * requests and how many steps it has done, so that one that stands still over a request can be told from one
 * that works. What it is at before it is ready comes from `hone_vllm.py`.
 */
export async function readVllmHealth(
  child: Pick<Child, "baseURL">,
  signal?: AbortSignal,
  read: MetricsPage = readMetrics,
): Promise<Health> {
  const page = await unlessAborted(read(child.baseURL), signal);
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
export function vllmHealthBeside(
  awaited: () => number,
  read?: MetricsPage,
): (child: Pick<Child, "baseURL">, signal?: AbortSignal) => Promise<Health> {
  return async (child, signal) => {
    const health = await readVllmHealth(child, signal, read);
    return health.phase === "idle" && awaited() > 0 ? { ...health, phase: "decoding" } : health;
  };
}

/** What others wait for too is not broken off. */
async function unlessAborted<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return await work;
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
