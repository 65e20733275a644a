import type { TextChunk, TextCompletion } from "@hone/core";
import type { EngineChunk } from "../../../ports/engine.ts";
import { createSamples, type Answer, type Sample } from "../../answer.ts";
import type { GatewayParts } from "../../call.ts";
import type { ResponseSink } from "../../response-sink.ts";
import { respondStreamed, toEvent } from "../../streamed.ts";
import type { TextCall } from "./read.ts";
import { createTextLogprobs } from "./logprobs.ts";
import type { SampledTokens } from "../../token-table.ts";
import { respondWhole, usageOf } from "../../whole.ts";

/** A plain prompt's answer: the engine's text as it is, nothing parsed. */
export function respondText(
  parts: GatewayParts,
  call: TextCall,
  sink: ResponseSink,
): Promise<void> {
  if (call.request.stream) return respondTextStreamed(parts, call, sink);
  return respondWhole(parts, call, sink, {
    answers: async (samples) => samples.map(toAnswer),
    body: async (samples): Promise<TextCompletion> => ({
      ...headOf(call),
      choices: await Promise.all(
        samples.map(async (sample) => ({
          index: sample.index,
          text: sample.text,
          logprobs: wantsLogprobs(call)
            ? createTextLogprobs().write(await parts.tokens.content(sample))
            : null,
          finish_reason: sample.finish ?? "length",
          ...idsOf(call, sample.ids, true),
        })),
      ),
      usage: usageOf(call, samples),
    }),
  });
}

function respondTextStreamed(
  parts: GatewayParts,
  call: TextCall,
  sink: ResponseSink,
): Promise<void> {
  const samples = createSamples(call.engineRequest.n);
  const logprobs = samples.map(createTextLogprobs);
  const usage = call.request.stream_options?.include_usage ?? false;
  const begun = new Set<number>();

  async function write(chunk: EngineChunk): Promise<void> {
    const { index, text, tokenIds, finishReason } = chunk;
    const content = wantsLogprobs(call) ? await parts.tokens.content(sampledIn(chunk)) : null;
    const tellsTokens = content !== null || call.request.return_token_ids === true;
    // Half a character, or text that may become a stop string: there is nothing to tell yet.
    if (!text && finishReason === null && !(tellsTokens && tokenIds.length > 0)) return;
    const ids = idsOf(call, tokenIds, !begun.has(index));
    begun.add(index);
    const event: TextChunk = {
      ...headOf(call),
      choices: [
        {
          index,
          text,
          logprobs: content && logprobs[index]!.write(content),
          finish_reason: finishReason,
          ...ids,
        },
      ],
      ...(usage && { usage: null }),
    };
    await sink.write(toEvent(event));
  }

  return respondStreamed(parts, call, sink, samples, {
    begin: async () => {},
    chunk: write,
    answers: async () => samples.map(toAnswer),
    async end() {
      if (!usage) return;
      const last: TextChunk = { ...headOf(call), choices: [], usage: usageOf(call, samples) };
      await sink.write(toEvent(last));
    },
  });
}

function headOf(call: TextCall) {
  return {
    id: call.completionId,
    object: "text_completion" as const,
    created: call.created,
    model: call.policy,
  };
}

function wantsLogprobs({ request }: TextCall): boolean {
  return request.logprobs != null;
}

function idsOf({ request, engineRequest }: TextCall, ids: readonly number[], first: boolean) {
  if (!request.return_token_ids) return {};
  return {
    token_ids: [...ids],
    ...(first && { prompt_token_ids: [...engineRequest.prompt] }),
  };
}

function sampledIn({ tokenIds, logprobs, topLogprobs }: EngineChunk): SampledTokens {
  return { ids: tokenIds, logprobs, top: topLogprobs ?? [] };
}

function toAnswer(sample: Sample): Answer {
  return {
    message: { role: "assistant", content: sample.text },
    finishReason: sample.finish ?? "length",
  };
}
