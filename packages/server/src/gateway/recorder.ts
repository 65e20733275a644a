import { newId } from "@hone/core";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { GatewayCounters } from "./counters.ts";
import type { Prompt } from "./prompt.ts";
import type { Answer, Sample } from "./sample.ts";

type SameForAll = "kind" | "messages" | "tools" | "temperature" | "topP" | "seed" | "constrained";

/** What was asked, of whom, under which prompt: the same for every choice. */
export interface CallRecord extends Pick<LedgerCompletion, "rolloutId" | "policy" | SameForAll> {
  prompt: Prompt;
}

export interface Recorder {
  /** Counts a call in, so that the order of its rollout is kept until it is counted out. */
  open(rolloutId: string): { close(): void };
  /** Writes the choices down, undelivered. Resolves to their ids. */
  append(
    call: CallRecord,
    samples: readonly Sample[],
    answers: readonly Answer[],
  ): Promise<string[]>;
  delivered(ids: readonly string[]): Promise<void>;
}

export function createRecorder(ledger: Ledger, counters: GatewayCounters): Recorder {
  // Calls of one rollout may end at the same moment: each takes its numbers before it waits.
  const live = new Map<string, { calls: number; nextSeq: number }>();
  return {
    open(rolloutId) {
      const entry = live.get(rolloutId) ?? { calls: 0, nextSeq: 0 };
      entry.calls++;
      live.set(rolloutId, entry);
      return {
        close() {
          if (--entry.calls === 0) live.delete(rolloutId);
        },
      };
    },

    async append(call, samples, answers) {
      const kept = samples
        .map((sample, i) => ({ sample, answer: answers[i]! }))
        .filter(({ sample }) => sample.ids.length > 0);
      if (kept.length === 0) return [];
      const last = (await ledger.list(call.rolloutId)).at(-1);
      const entry = live.get(call.rolloutId) ?? { calls: 0, nextSeq: 0 };
      const firstSeq = Math.max(entry.nextSeq, last ? last.seq + 1 : 0);
      entry.nextSeq = firstSeq + kept.length;
      const { prompt, ...asked } = call;
      const promptSuffix = Int32Array.from(prompt.ids.slice(prompt.parentLength));
      const createdAt = Date.now();
      const completions = kept.map(({ sample, answer }, i): LedgerCompletion => ({
        ...asked,
        id: newId("cmpl"),
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
