import type { AssistantMessage, FinishReason } from "@hone/core";
import type { EngineChunk, TokenChance } from "../ports/engine.ts";

/** One choice as it is sampled. */
export interface Sample {
  index: number;
  ids: number[];
  logprobs: number[];
  /** The likeliest tokens at each place; empty unless they are asked for. */
  top: (readonly TokenChance[])[];
  /** Of the prompt's tokens but the first; only where they are asked for. */
  promptLogprobs?: readonly number[] | undefined;
  /** The engine's visible text: it ends before a stop string, while `ids` run on past it. */
  text: string;
  finish: "stop" | "length" | null;
}

export function createSamples(n: number): Sample[] {
  return Array.from({ length: n }, (_, index) => ({
    index,
    ids: [],
    logprobs: [],
    top: [],
    text: "",
    finish: null,
  }));
}

export function addChunk(samples: readonly Sample[], chunk: EngineChunk): Sample {
  const sample = samples[chunk.index];
  if (!sample) throw new RangeError(`choice ${chunk.index} was not asked for`);
  sample.ids.push(...chunk.tokenIds);
  sample.logprobs.push(...chunk.logprobs);
  sample.top.push(...(chunk.topLogprobs ?? []));
  sample.promptLogprobs ??= chunk.promptLogprobs;
  sample.text += chunk.text;
  sample.finish = chunk.finishReason ?? sample.finish;
  return sample;
}

export interface Answer {
  message: AssistantMessage;
  finishReason: FinishReason;
  /** Which of the ask's stop strings ended a chat's answer. */
  stopString?: string | null | undefined;
}

/** The answer of a choice that never finished: the text that was sampled so far. */
export function brokenAnswer(sample: Sample): Answer {
  return { message: { role: "assistant", content: sample.text }, finishReason: "length" };
}
