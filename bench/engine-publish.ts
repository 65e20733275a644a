// From "load this policy" to the first token that it sampled, on an idle engine and on one that decodes.
import { setTimeout as delay } from "node:timers/promises";
import type { Child } from "../packages/server/src/supervise/child.ts";
import { post } from "./engine-contenders.ts";

const repeats = 15;

export interface PublishLatency {
  streams: number;
  medianMs: number;
  longestMs: number;
}

export async function publishLatencies(child: Child, adapter: string): Promise<PublishLatency[]> {
  const found: PublishLatency[] = [];
  let version = 2;
  for (const streams of [0, 32]) {
    const measured: number[] = [];
    for (let round = 0; round < repeats; round++) {
      const before = `policy@${version - 1}`;
      const busy = new AbortController();
      const others = Array.from({ length: streams }, () =>
        firstToken(child, before, 1024, busy.signal),
      );
      if (streams > 0) {
        await Promise.all(others);
        await delay(50);
      }
      const name = `policy@${version++}`;
      const start = performance.now();
      await post(child, "/v1/load_lora_adapter", { lora_name: name, lora_path: adapter });
      await firstToken(child, name, 1);
      measured.push(performance.now() - start);
      busy.abort();
      await post(child, "/v1/unload_lora_adapter", { lora_name: before });
    }
    const sorted = measured.toSorted((a, b) => a - b);
    found.push({
      streams,
      medianMs: Number((sorted[repeats >> 1] ?? Number.NaN).toFixed(1)),
      longestMs: Number((sorted.at(-1) ?? Number.NaN).toFixed(1)),
    });
  }
  return found;
}

/** Resolves with the first event; the rest is read until the signal comes. */
async function firstToken(
  child: Child,
  model: string,
  tokens: number,
  signal?: AbortSignal,
): Promise<void> {
  const response = await fetch(`${child.baseURL}/v1/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${child.key}`, "content-type": "application/json" },
    body: JSON.stringify({
      model,
      prompt: Array.from({ length: 64 }, (_, i) => 10 + i),
      max_tokens: tokens,
      ignore_eos: true,
      stream: true,
      logprobs: 0,
      return_token_ids: true,
    }),
    ...(signal && { signal }),
  });
  const reader = response.body?.getReader();
  if (!response.ok || !reader) throw new Error(`no stream: ${response.status}`);
  const { done } = await reader.read();
  if (done) throw new Error("the stream ended before its first token");
  const rest = async (): Promise<void> => {
    while (!(await reader.read()).done);
  };
  rest().catch(() => undefined);
}
