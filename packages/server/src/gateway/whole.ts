import type { Choice, Writer } from "./answer-events.ts";
import { makeAnswers, usageOf } from "./answer.ts";
import type { Call, GatewayParts } from "./call.ts";
import type { ResponseSink } from "./response-sink.ts";
import { addChunk, createSamples } from "./sample.ts";

/** A call without streaming: sampled, recorded, written whole, then marked as delivered. */
export async function respondWhole(
  parts: GatewayParts,
  call: Call,
  sink: ResponseSink,
  writer: Writer,
): Promise<void> {
  const samples = createSamples(call.engineRequest.n);
  for await (const chunk of parts.engine.generate(call.engineRequest)) addChunk(samples, chunk);
  const usage = usageOf(call, samples);
  parts.counters.sampledTokens += usage.completion_tokens;
  const answers = await makeAnswers(parts.renderer, call, samples);
  const recorded = call.record ? await parts.recorder.append(call.record, samples, answers) : [];
  const choices = samples.map(async (sample, i): Promise<Choice> => {
    const logprobs = call.ask.logprobs === null ? null : await parts.tokens.content(sample);
    return { index: sample.index, ids: sample.ids, logprobs, ...answers[i]! };
  });
  const body = JSON.stringify(writer.whole(await Promise.all(choices), usage));
  sink.start({
    ...call.headers,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
  });
  if (await sink.end(body)) await parts.recorder.delivered(recorded);
  else parts.counters.abandoned++;
}
