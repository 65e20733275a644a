import { newId, type AssistantMessage, type FinishReason, type Usage } from "@hone/core";
import type { EngineChunk, TokenChance } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { Call } from "./call.ts";

/** One choice as it is sampled. */
export interface Sample {
  index: number;
  ids: number[];
  logprobs: number[];
  /** The likeliest tokens at each place; empty unless they are asked for. */
  top: (readonly TokenChance[])[];
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
  sample.text += chunk.text;
  sample.finish = chunk.finishReason ?? sample.finish;
  return sample;
}

export function usageOf({ engineRequest }: Call, samples: readonly Sample[]): Usage {
  const prompt = engineRequest.prompt.length;
  const sampled = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
  return { prompt_tokens: prompt, completion_tokens: sampled, total_tokens: prompt + sampled };
}

export interface Answer {
  message: AssistantMessage;
  finishReason: FinishReason;
}

/** The assistant's messages of finished choices. */
export function makeAnswers(
  renderer: Renderer,
  call: Call,
  samples: readonly Sample[],
): Promise<Answer[]> {
  return Promise.all(samples.map((sample) => makeAnswer(renderer, call, sample)));
}

async function makeAnswer(renderer: Renderer, call: Call, sample: Sample): Promise<Answer> {
  const { ask, engineRequest } = call;
  const finish = sample.finish ?? "length";
  // A grammar leaves no room for reasoning or calls; a parser might find them in what its strings say.
  if (ask.kind === "text" || ask.format) {
    return { message: { role: "assistant", content: sample.text }, finishReason: finish };
  }
  const last = sample.ids.at(-1);
  const cutByString =
    engineRequest.stop.length > 0 &&
    sample.finish === "stop" &&
    !(last !== undefined && engineRequest.stopTokenIds.includes(last));
  // The ids run on past a stop string, wherever it falls: in a thought, in a call, in what is said.
  const visible = cutByString ? sample.text : undefined;
  const parsed = await renderer.parse(sample.ids, ask.callable, visible);
  const calls = parsed.toolCalls.map((made) => ({
    id: newCallId(),
    type: "function" as const,
    function: { name: made.name, arguments: made.arguments },
  }));
  const message: AssistantMessage = {
    role: "assistant",
    content: parsed.content || (calls.length > 0 ? null : ""),
    ...(calls.length > 0 && { tool_calls: calls }),
    ...(parsed.reasoning && { reasoning_content: parsed.reasoning }),
  };
  return { message, finishReason: calls.length > 0 && finish === "stop" ? "tool_calls" : finish };
}

/** What had gone out of a choice that never finished. */
export function brokenAnswer(sample: Sample): Answer {
  return { message: { role: "assistant", content: sample.text }, finishReason: "length" };
}

function newCallId(): string {
  return `call_${newId("cmpl").slice("cmpl_".length)}`;
}
