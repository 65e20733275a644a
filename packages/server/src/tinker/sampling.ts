import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { EngineChunk, EngineRequest } from "../ports/engine.ts";
import { addChunk, createSamples } from "../gateway/sample.ts";
import type { Answer } from "./futures.ts";
import { readPath, readSamplerId, requireSession, samplerIdOf } from "./ids.ts";
import { encodeSamples } from "./messages.ts";
import type { TinkerParts } from "./parts.ts";
import type { createSamplerSchema, SampleRequest } from "./requests.ts";
import type { z } from "zod";

/** Below this, engines sample greedily or at another temperature than was asked for. */
const leastTemperature = 0.01;

/** A sampler of a saved policy, or of the bare base. */
export async function createSampler(
  { base, router }: TinkerParts,
  keyId: string,
  request: z.output<typeof createSamplerSchema>,
): Promise<string> {
  const { session_id: session, sampling_session_seq_id: nth, base_model, model_path } = request;
  requireSession(session);
  if (typeof base_model === "string" && base_model !== base) {
    throw new HoneError(
      `This server's base is "${base}", not "${base_model.slice(0, 120)}". Name it, or start a server with the other.`,
      { code: "base_mismatch", param: "base_model" },
    );
  }
  if (typeof model_path !== "string") return samplerIdOf(null, session, nth);
  const policy = readPath(model_path);
  // A policy that was never there or was removed is refused now, and not with the first sample.
  (await router.leaseForModel(keyId, policy)).release();
  return samplerIdOf(policy, session, nth);
}

export function samplerInfo({ base }: TinkerParts, id: string): Record<string, unknown> {
  const policy = readSamplerId(id);
  const [model, step] = policy?.split("@") ?? [];
  return {
    sampler_id: id,
    base_model: base,
    ...(policy !== null && { model_path: `tinker://${model}/sampler_weights/${step}` }),
  };
}

/** Names a request to a sampler: the same when it is sent again. */
export function sampleIdOf({ sampling_session_id, seq_id }: SampleRequest): string {
  return `${sampling_session_id}:${seq_id}`;
}

/** Samples on the token ids of the prompt; there is no template. */
export async function sample(
  { base, router, ...parts }: TinkerParts,
  keyId: string,
  request: SampleRequest,
  signal: AbortSignal,
): Promise<Answer> {
  const lease = await router.leaseForModel(
    keyId,
    readSamplerId(request.sampling_session_id) ?? base,
  );
  try {
    const asked = await engineRequest(parts, request, lease.policy, signal);
    const samples = createSamples(asked.n);
    for await (const chunk of onceFree(parts.engine, asked)) addChunk(samples, chunk);
    const prompt = samples[0]?.promptLogprobs;
    return {
      proto: encodeSamples(
        samples.map((one) => ({ ...one, finish: one.finish ?? "length" })),
        request.topk_sample_logprobs,
        prompt ? promptLogprobs(prompt, request) : null,
      ),
    };
  } finally {
    lease.release();
  }
}

/** The client has its request's future already: where the engines are full, the request waits here. */
async function* onceFree(
  engine: TinkerParts["engine"],
  asked: EngineRequest,
): AsyncGenerator<EngineChunk> {
  for (;;) {
    try {
      yield* engine.generate(asked);
      return;
    } catch (error) {
      // Nothing was sampled then.
      if (!HoneError.isInstance(error) || error.code !== "engine_busy") throw error;
      await delay(error.retryAfterMs ?? 1_000, undefined, { signal: asked.signal });
    }
  }
}

async function engineRequest(
  { engine, renderer }: Pick<TinkerParts, "engine" | "renderer">,
  request: SampleRequest,
  model: string,
  signal: AbortSignal,
): Promise<EngineRequest> {
  const { sampling_params: params, prompt_logprobs, prompt_logprobs_last_n } = request;
  const [{ maxModelLen }, info] = await Promise.all([engine.info(), renderer.info()]);
  const prompt = request.prompt.chunks.flatMap(({ tokens }) => tokens);
  const foreign = prompt.find((id) => id >= info.vocabSize);
  if (foreign !== undefined) {
    throw refused(
      "prompt",
      `token ids of this base are 0 to ${info.vocabSize - 1}, got ${foreign}. Encode it with the base's own tokenizer`,
    );
  }
  const room = maxModelLen - prompt.length;
  if (prompt.length === 0 || room < 1) {
    const most = `the context holds ${maxModelLen}, of which at least one is for the answer`;
    throw refused("prompt", `it has ${prompt.length} tokens, and ${most}`);
  }
  if (typeof prompt_logprobs_last_n === "number") {
    const wanted = prompt_logprobs === true && prompt_logprobs_last_n < prompt.length;
    if (!wanted)
      throw refused("prompt_logprobs_last_n", "it needs prompt_logprobs and a longer prompt");
  }
  const { stop = null, temperature, top_p, seed, max_tokens } = params;
  const stops = stop === null ? [] : typeof stop === "string" ? [stop] : stop;
  return {
    model,
    prompt,
    n: request.num_samples,
    maxTokens: Math.min(max_tokens ?? room, room),
    temperature: temperature < leastTemperature ? 0 : temperature,
    topP: top_p,
    seed: seed ?? null,
    stop: stops.filter((one) => typeof one === "string"),
    // Whatever else is named, the base's end token ends an answer.
    stopTokenIds: [...info.stopTokenIds, ...stops.filter((one) => typeof one === "number")],
    topLogprobs: request.topk_sample_logprobs,
    ...(prompt_logprobs === true && { promptLogprobs: true }),
    stream: false,
    signal,
  };
}

/** A value for each token of the prompt; none for the first, which nothing predicts, and for those not asked for. */
function promptLogprobs(told: readonly number[], request: SampleRequest): number[] {
  const from = told.length - (request.prompt_logprobs_last_n ?? told.length);
  return [NaN, ...told.map((logprob, at) => (at < from ? NaN : logprob))];
}

function refused(param: string, message: string): HoneError {
  return new HoneError(`${param}: ${message}.`, { code: "invalid_request", param });
}
