import type { ChatChoice, ChatCompletion } from "@hone/core";
import { addChunk, createSamples, makeAnswer, type Answer, type Sample } from "./answer.ts";
import type { ChatCall, GatewayParts } from "./chat-call.ts";
import type { ResponseSink } from "./response-sink.ts";

/** The call without streaming: sampled, recorded, written whole, then marked as delivered. */
export async function respondWhole(
  parts: GatewayParts,
  call: ChatCall,
  sink: ResponseSink,
): Promise<void> {
  const samples = createSamples(call.engineRequest.n);
  for await (const chunk of parts.engine.generate(call.engineRequest)) addChunk(samples, chunk);
  const answers = await makeAnswers(parts, call, samples);
  const ids = call.record ? await parts.recorder.append(call.record, samples, answers) : [];
  const completion: ChatCompletion = {
    id: call.completionId,
    object: "chat.completion",
    created: call.created,
    model: call.policy,
    choices: await Promise.all(
      samples.map((sample, i) => toChoice(parts, call, sample, answers[i]!)),
    ),
    usage: usageOf(call, samples),
  };
  const body = JSON.stringify(completion);
  sink.start({
    ...call.headers,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
  });
  if (await sink.end(body)) await parts.recorder.delivered(ids);
  else parts.counters.abandoned++;
}

export async function makeAnswers(
  parts: GatewayParts,
  call: ChatCall,
  samples: readonly Sample[],
): Promise<Answer[]> {
  const { stop, stopTokenIds } = call.engineRequest;
  parts.counters.sampledTokens += samples.reduce((sum, sample) => sum + sample.ids.length, 0);
  const context = { tools: call.tools, stop, stopTokenIds };
  return Promise.all(samples.map((sample) => makeAnswer(parts.renderer, sample, context)));
}

export function usageOf(call: ChatCall, samples: readonly Sample[]) {
  const prompt = call.engineRequest.prompt.length;
  const sampled = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: sampled,
    total_tokens: prompt + sampled,
  };
}

async function toChoice(
  { tokens }: GatewayParts,
  { request }: ChatCall,
  sample: Sample,
  { message, finishReason }: Answer,
): Promise<ChatChoice> {
  const { content, tool_calls: calls, reasoning_content: reasoning } = message;
  return {
    index: sample.index,
    message: {
      role: "assistant",
      content: typeof content === "string" ? content : null,
      refusal: null,
      ...(calls && { tool_calls: calls }),
      ...(reasoning && { reasoning_content: reasoning }),
    },
    logprobs: request.logprobs
      ? { content: await tokens.content(sample.ids, sample.logprobs), refusal: null }
      : null,
    finish_reason: finishReason,
  };
}
