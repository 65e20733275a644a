import type { Sampler, EngineRequest, TokenChance } from "../ports/engine.ts";

export interface Sampled {
  ids: number[];
  logprobs: number[];
  /** Empty unless the request asks for them. */
  top: (readonly TokenChance[])[];
  text: string;
  finish: "stop" | "length" | null;
  /** How many chunks carried it. */
  chunks: number;
}

export type Ask = Partial<EngineRequest> & { prompt: readonly number[] };

/** Samples to the end and joins the chunks of each choice. */
export async function sample(engine: Pick<Sampler, "generate">, ask: Ask): Promise<Sampled[]> {
  const request: EngineRequest = {
    model: "base",
    n: 1,
    maxTokens: 12,
    temperature: 0,
    topP: 1,
    seed: null,
    stop: [],
    stopTokenIds: [],
    stream: false,
    signal: new AbortController().signal,
    ...ask,
  };
  const choices = Array.from({ length: request.n }, (): Sampled => ({
    ids: [],
    logprobs: [],
    top: [],
    text: "",
    finish: null,
    chunks: 0,
  }));
  for await (const chunk of engine.generate(request)) {
    const choice = choices[chunk.index]!;
    choice.ids.push(...chunk.tokenIds);
    choice.logprobs.push(...chunk.logprobs);
    choice.top.push(...(chunk.topLogprobs ?? []));
    choice.text += chunk.text;
    choice.finish = chunk.finishReason;
    choice.chunks++;
  }
  return choices;
}

export async function sampleOne(engine: Pick<Sampler, "generate">, ask: Ask): Promise<Sampled> {
  const [choice] = await sample(engine, ask);
  if (!choice) throw new Error("the engine sent no choice");
  return choice;
}

/** A prompt of ordinary tokens, the same for the same number. */
export function promptOf(number: number, length = 24): number[] {
  let state = (number + 1) * 2_654_435_761;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 10 + (state % 700);
  });
}

export function largestDifference(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Infinity;
  return Math.max(0, ...a.map((value, i) => Math.abs(value - b[i]!)));
}
