import { createHash } from "node:crypto";
import type { EngineChunk } from "../ports/engine.ts";
import type { LiveAdapter, Probe, ProbeAnswer } from "../ports/live-set.ts";

/** An adapter for tests in which nobody looks at its files: its digest is of its folder's name. */
export function adapterAt(policy: string, path = `/policies/${policy.split("@")[1]}`): LiveAdapter {
  const sha256 = createHash("sha256").update(path).digest("hex");
  return { policy, path, sha256, bytes: 1, rank: 16 };
}

/** What the trainer of such tests tells of every adapter. */
export const testProbe: Probe = {
  dtype: "float32",
  ids: [11, 12, 13],
  policy: { prompt: [-1, -2], next: -0.5 },
  base: { prompt: [-1.5, -2.5], next: -0.25 },
};

/** What an engine samples that answers a probe so. */
export function answerTo({ prompt, next }: ProbeAnswer): EngineChunk {
  return {
    index: 0,
    text: "a",
    tokenIds: [11],
    logprobs: [next],
    promptLogprobs: prompt,
    finishReason: "length",
  };
}
