import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { GatewayCounters } from "./counters.ts";
import type { Prompt } from "../conversation/prompt.ts";
import type { Answer, Sample } from "./sample.ts";

type SameForAll = "kind" | "messages" | "tools" | "temperature" | "topP" | "seed" | "constrained";

/** What the ledger keeps of a request. It is the same for every choice of the answer. */
export interface AskRecord extends Pick<LedgerCompletion, "rolloutId" | "policy" | SameForAll> {
  answerId: string;
  prompt: Prompt;
}

export interface Recorder {
  /** To be called when a request of the rollout begins. Numbers of its completions are kept until `close`. */
  open(rolloutId: string): { close(): void };
  /** Writes the choices down, undelivered. Resolves to their ids. */
  append(
    record: AskRecord,
    samples: readonly Sample[],
    answers: readonly Answer[],
  ): Promise<string[]>;
  delivered(ids: readonly string[]): Promise<void>;
}

export function createRecorder(ledger: Ledger, counters: GatewayCounters): Recorder {
  // Requests of one rollout may end at the same moment. Each takes its numbers here before it waits for the disk.
  const live = new Map<string, { requests: number; nextSeq: number }>();
  return {
    open(rolloutId) {
      const entry = live.get(rolloutId) ?? { requests: 0, nextSeq: 0 };
      entry.requests++;
      live.set(rolloutId, entry);
      return {
        close() {
          if (--entry.requests === 0) live.delete(rolloutId);
        },
      };
    },

    async append(record, samples, answers) {
      const kept = samples
        .map((sample, i) => ({ sample, answer: answers[i]! }))
        .filter(({ sample }) => sample.ids.length > 0);
      if (kept.length === 0) return [];
      const last = (await ledger.list(record.rolloutId)).at(-1);
      const entry = live.get(record.rolloutId) ?? { requests: 0, nextSeq: 0 };
      const firstSeq = Math.max(entry.nextSeq, last ? last.seq + 1 : 0);
      entry.nextSeq = firstSeq + kept.length;
      const { answerId, prompt, ...asked } = record;
      const promptSuffix = Int32Array.from(prompt.ids.slice(prompt.parentLength));
      const createdAt = Date.now();
      const completions = kept.map(({ sample, answer }, i): LedgerCompletion => ({
        ...asked,
        id: samples.length === 1 ? answerId : `${answerId}_${sample.index}`,
        seq: firstSeq + i,
        parentId: prompt.parentId,
        promptSuffix,
        sampled: Int32Array.from(sample.ids),
        logprobs: Float32Array.from(sample.logprobs),
        finishReason: answer.finishReason,
        choice: sample.index,
        choices: samples.length,
        answer: answer.message,
        delivered: false,
        splitReason: prompt.splitReason,
        createdAt,
      }));
      await ledger.append(completions);
      counters.recorded += completions.length;
      return completions.map((completion) => completion.id);
    },

    async delivered(ids) {
      if (ids.length === 0) return;
      await ledger.markDelivered(ids);
      counters.delivered += ids.length;
    },
  };
}
