import { HoneError } from "@hone/core";
import type { Engine, EngineChunk } from "../ports/engine.ts";

/** An engine without a process: its requests end when the test says so. */
export interface TestEngine extends Engine {
  /** Lets its oldest request finish. */
  finish: () => void;
  /** Gives its oldest request a token that is not its last. */
  say: () => void;
  /** Fails its next request, after so many chunks. */
  fails: { code: "engine_error" | "engine_unavailable"; after: number } | null;
  /** Its metrics, or null where it does not show them. */
  kv: { use: number; preemptions: number } | null;
  /** How many steps its metrics show, if they do. */
  steps: number | null;
  asked: number;
}

export function createTestEngine(name: string): TestEngine {
  const open: ((finishReason: "stop" | null) => void)[] = [];
  const unused = (): never => {
    throw new Error("the router asks for no more than samples and metrics");
  };
  const chunk = (finishReason: "stop" | null): EngineChunk => {
    return { index: 0, text: name, tokenIds: [1], logprobs: [-1], finishReason };
  };
  const engine: TestEngine = {
    kind: "vllm",
    ...{ info: unused, load: unused, unload: unused, served: unused },
    ...{ fails: null, kv: { use: 0, preemptions: 0 }, steps: null, asked: 0 },
    finish: () => open.shift()?.("stop"),
    say: () => open.shift()?.(null),
    async metrics() {
      if (!engine.kv) throw new Error("connect ECONNREFUSED");
      const steps =
        engine.steps === null ? "" : `vllm:iteration_tokens_total_count ${engine.steps}\n`;
      return `vllm:kv_cache_usage_perc ${engine.kv.use}\nvllm:num_preemptions_total ${engine.kv.preemptions}\n${steps}`;
    },
    async *generate({ signal }) {
      engine.asked++;
      const { fails } = engine;
      engine.fails = null;
      if (fails?.after) yield chunk(null);
      if (fails) throw new HoneError("died", { code: fails.code });
      for (;;) {
        const finishReason = await new Promise<"stop" | null>((resolve, reject) => {
          open.push(resolve);
          signal.addEventListener("abort", () => reject(signal.reason as Error));
        });
        yield chunk(finishReason);
        if (finishReason !== null) return;
      }
    },
  };
  return engine;
}
