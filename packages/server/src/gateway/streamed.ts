import { HoneError } from "@hone/core";
import type { AnswerEvent, Writer } from "./answer-events.ts";
import { makeAnswers, usageOf } from "./answer.ts";
import { clientGone, type PreparedAsk, type GatewayParts } from "./prepare.ts";
import type { ResponseSink } from "./response-sink.ts";
import { addChunk, brokenAnswer, createSamples, type Sample } from "./sample.ts";
import { createTeller } from "./teller.ts";

/**
 * Answers with server-sent events. Headers wait for the engine's first chunk, so that a missing policy or
 * engine is an error response; after them, a failure is an error event in place of the end.
 */
export async function respondStreamed(
  parts: GatewayParts,
  prepared: PreparedAsk,
  sink: ResponseSink,
  writer: Writer,
): Promise<void> {
  const samples = createSamples(prepared.engineRequest.n);
  const teller = await createTeller(parts, prepared, samples);
  let recorded: string[] | undefined;
  const tell = (event: AnswerEvent): Promise<void> | undefined => {
    const text = writer.event(event);
    return text ? sink.write(text) : undefined;
  };
  try {
    for await (const chunk of parts.engine.generate(prepared.engineRequest)) {
      addChunk(samples, chunk);
      if (!sink.started) {
        sink.start({
          ...prepared.headers,
          "content-type": "text/event-stream; charset=utf-8",
          "cache-control": "no-cache",
          "x-accel-buffering": "no",
        });
        await tell({ type: "start" });
      }
      const event = await teller.chunk(chunk);
      if (event) await tell(event);
      if (sink.signal.aborted) throw clientGone();
    }
    parts.counters.sampledTokens += usageOf(prepared, samples).completion_tokens;
    const answers = teller.asTold(await makeAnswers(parts, prepared, samples));
    recorded = prepared.record
      ? await parts.recorder.append(prepared.record, samples, answers)
      : [];
    for await (const event of teller.rest(answers)) await tell(event);
  } catch (error) {
    if (recorded === undefined) await recordBroken(parts, prepared, samples);
    if (!sink.started) throw sink.signal.aborted ? clientGone(error) : error;
    await writeFailure(parts, sink, writer, error);
    return;
  }
  const end = writer.event({ type: "end", usage: usageOf(prepared, samples) });
  if (await sink.end(end)) await parts.recorder.delivered(recorded);
  else parts.counters.abandoned++;
}

/** Records what was sampled before the request failed, as undelivered: it can be looked at, and never trains. */
async function recordBroken(
  parts: GatewayParts,
  prepared: PreparedAsk,
  samples: readonly Sample[],
): Promise<void> {
  if (!prepared.record) return;
  try {
    await parts.recorder.append(prepared.record, samples, samples.map(brokenAnswer));
  } catch (error) {
    parts.log.error({ err: error }, "what was sampled for a broken request could not be recorded");
  }
}

async function writeFailure(
  parts: GatewayParts,
  sink: ResponseSink,
  writer: Writer,
  cause: unknown,
): Promise<void> {
  if (sink.signal.aborted) {
    parts.counters.abandoned++;
    return;
  }
  parts.counters.brokenStreams++;
  if (!HoneError.isInstance(cause)) {
    parts.log.error({ err: cause }, "a stream failed in a way that was not foreseen");
  }
  const error = HoneError.isInstance(cause)
    ? cause
    : new HoneError("The server failed. Its log has the reason.", { code: "internal_error" });
  await sink.end(writer.event({ type: "failure", error }));
}
