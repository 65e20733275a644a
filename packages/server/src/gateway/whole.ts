import type { Choice, Writer } from "./answer-events.ts";
import { makeAnswers, usageOf } from "./answer.ts";
import type { PreparedAsk, GatewayParts } from "./prepare.ts";
import type { ResponseSink } from "./response-sink.ts";
import { addChunk, createSamples } from "./sample.ts";

/** Answers without streaming: the answer is sampled, recorded and written whole, then it is marked as delivered. */
export async function respondWhole(
  parts: GatewayParts,
  prepared: PreparedAsk,
  sink: ResponseSink,
  writer: Writer,
): Promise<void> {
  const samples = createSamples(prepared.engineRequest.n);
  for await (const chunk of parts.engine.generate(prepared.engineRequest)) addChunk(samples, chunk);
  const usage = usageOf(prepared, samples);
  parts.counters.sampledTokens += usage.completion_tokens;
  const answers = await makeAnswers(parts, prepared, samples);
  const recorded = prepared.record
    ? await parts.recorder.append(prepared.record, samples, answers)
    : [];
  const choices = samples.map(async (sample, i): Promise<Choice> => {
    const logprobs = prepared.ask.logprobs === null ? null : await parts.tokens.content(sample);
    const { index, ids, promptLogprobs: told } = sample;
    // Nothing predicts the first token.
    const [, ...prompt] = told ? prepared.engineRequest.prompt : [];
    const promptLogprobs =
      told && (await parts.tokens.content({ ids: prompt, logprobs: told, top: [] }));
    return { index, ids, logprobs, promptLogprobs, ...answers[i]! };
  });
  const body = JSON.stringify(writer.whole(await Promise.all(choices), usage));
  sink.start({
    ...prepared.headers,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
  });
  if (await sink.end(body)) await parts.recorder.delivered(recorded);
  else parts.counters.abandoned++;
}
