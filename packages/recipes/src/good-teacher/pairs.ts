import { HoneError, mulberry32, shuffledIndices, type ChatMessage } from "@hone/core";
import {
  labelledSchema,
  outputsSchema,
  promptOf,
  readRows,
  type Labelled,
  type Outputs,
  type RewardPair,
} from "./preferences.ts";
import { jsonLines, runStage } from "./stage.ts";

export interface PairsOptions {
  labelled: string;
  outputs: string;
  out: string;
  /** The share of the pairs that are of the first policy's own answers. */
  onPolicyShare: number;
  /** @default as many as there are prompts with a pair of either kind */
  pairs?: number | undefined;
  seed: number;
}

/**
 * Mixes pairs of the policy's own answers with given ones. A prompt gives one pair, of one kind; only prompts that have
 * both are used, so that every share has as many pairs, and the order of the prompts is the same for all.
 */
export async function mixPairs(options: PairsOptions): Promise<boolean> {
  const { labelled, outputs, out, onPolicyShare, pairs, seed } = options;
  return await runStage(
    {
      ...{ name: "pairs", out, inputs: { labelled, outputs } },
      options: { onPolicyShare, pairs, seed },
    },
    async () => {
      const given = offPolicyPairs(await readRows(labelled, labelledSchema));
      const own = onPolicyPairs(await readRows(outputs, outputsSchema));
      const both = [...given.keys()].filter((key) => own.has(key));
      if (both.length === 0) {
        throw new HoneError(
          "No prompt has a given pair and one of the policy's own answers that the scorer tells apart: there is nothing to train a reward model on. Take more samples, or look at the scorer.",
          { code: "invalid_config" },
        );
      }
      const order = shuffledIndices(both.length, mulberry32(seed)).slice(0, pairs);
      const onPolicy = Math.round(onPolicyShare * order.length);
      return jsonLines(
        order.map((at, place) => (place < onPolicy ? own : given).get(both[at] as string)),
      );
    },
  );
}

function offPolicyPairs(rows: readonly Labelled[]): Map<string, RewardPair> {
  const found = new Map<string, RewardPair>();
  for (const { chosen, rejected, score_chosen, score_rejected, split } of rows) {
    if (split !== "reward_model" || score_chosen === score_rejected) continue;
    const prompt = promptOf(chosen);
    const key = JSON.stringify(prompt);
    if (found.has(key)) continue;
    found.set(key, {
      ...{ prompt, onPolicy: false },
      ...{ chosen: chosen.slice(-1), rejected: rejected.slice(-1) },
    });
  }
  return found;
}

/** The best and the worst answer to each prompt. */
function onPolicyPairs(rows: readonly Outputs[]): Map<string, RewardPair> {
  const found = new Map<string, RewardPair>();
  for (const { prompt, split, outputs, gold } of rows) {
    if (split !== "reward_model") continue;
    const [best, worst] = [Math.max(...gold), Math.min(...gold)];
    if (best === worst) continue;
    const said = (score: number): ChatMessage[] => [
      { role: "assistant", content: outputs[gold.indexOf(score)] as string },
    ];
    found.set(JSON.stringify(prompt), {
      ...{ prompt, onPolicy: true, chosen: said(best), rejected: said(worst) },
    });
  }
  return found;
}
