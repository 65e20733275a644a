import type { ChatChoice, ChatCompletion } from "@hone/core";
import { addChunk, createSamples, makeAnswer, type Answer, type Sample } from "./answer.ts";
import type { Call, GatewayParts } from "./call.ts";
import type { ChatCall } from "./dialects/chat/read.ts";
import type { ResponseSink } from "./response-sink.ts";

/** A call without streaming: sampled, recorded, written whole, then marked as delivered. */
export async function respondWhole(
  parts: GatewayParts,
  call: Call,
  sink: ResponseSink,
  dialect: {
    answers(samples: readonly Sample[]): Promise<Answer[]>;
    body(samples: readonly Sample[], answers: readonly Answer[]): Promise<unknown>;
  },
): Promise<void> {
  const samples = createSamples(call.engineRequest.n);
  for await (const chunk of parts.engine.generate(call.engineRequest)) addChunk(samples, chunk);
  parts.counters.sampledTokens += sampledTokens(samples);
  const answers = await dialect.answers(samples);
  const ids = call.record ? await parts.recorder.append(call.record, samples, answers) : [];
  const body = JSON.stringify(await dialect.body(samples, answers));
  sink.start({
    ...call.headers,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
  });
  if (await sink.end(body)) await parts.recorder.delivered(ids);
  else parts.counters.abandoned++;
}

export function respondChat(parts: GatewayParts, call: ChatCall, sink: ResponseSink) {
  return respondWhole(parts, call, sink, {
    answers: (samples) => makeAnswers(parts, call, samples),
    body: async (samples, answers): Promise<ChatCompletion> => ({
      id: call.completionId,
      object: "chat.completion",
      created: call.created,
      model: call.policy,
      choices: await Promise.all(
        samples.map((sample, i) => toChoice(parts, call, sample, answers[i]!)),
      ),
      usage: usageOf(call, samples),
    }),
  });
}

export async function makeAnswers(
  parts: GatewayParts,
  call: ChatCall,
  samples: readonly Sample[],
): Promise<Answer[]> {
  const { format, stop, stopTokenIds } = call.engineRequest;
  const context = { format, callable: call.callable, stop, stopTokenIds };
  return Promise.all(samples.map((sample) => makeAnswer(parts.renderer, sample, context)));
}

export function sampledTokens(samples: readonly Sample[]): number {
  return samples.reduce((sum, sample) => sum + sample.ids.length, 0);
}

export function usageOf(call: Call, samples: readonly Sample[]) {
  const prompt = call.engineRequest.prompt.length;
  const sampled = sampledTokens(samples);
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
    logprobs: request.logprobs ? { content: await tokens.content(sample), refusal: null } : null,
    finish_reason: finishReason,
  };
}
