import { HoneError } from "@hone/core";
import type { EngineChunk } from "../ports/engine.ts";
import { addChunk, brokenAnswer, type Answer, type Sample } from "./answer.ts";
import { clientGone, type Call, type GatewayParts } from "./call.ts";
import type { ResponseSink } from "./response-sink.ts";
import { sampledTokens } from "./whole.ts";

/** What one dialect writes of a stream. */
export interface StreamDialect {
  /** Right behind the headers. */
  begin(): Promise<void>;
  chunk(chunk: EngineChunk): Promise<void>;
  /** The answers as the client has them: what went out cannot be taken back. */
  answers(): Promise<Answer[]>;
  /** What is still owed when all is sampled and recorded. */
  end(answers: readonly Answer[]): Promise<void>;
}

/**
 * A call as server-sent events. Headers wait for the engine's first chunk, so that a missing policy or
 * engine is an error response; after them, a failure is an error event and an end without [DONE].
 */
export async function respondStreamed(
  parts: GatewayParts,
  call: Call,
  sink: ResponseSink,
  samples: readonly Sample[],
  dialect: StreamDialect,
): Promise<void> {
  let recorded: string[] | undefined;
  try {
    for await (const chunk of parts.engine.generate(call.engineRequest)) {
      addChunk(samples, chunk);
      if (!sink.started) {
        sink.start({
          ...call.headers,
          "content-type": "text/event-stream; charset=utf-8",
          "cache-control": "no-cache",
          "x-accel-buffering": "no",
        });
        await dialect.begin();
      }
      await dialect.chunk(chunk);
      if (sink.signal.aborted) throw clientGone();
    }
    parts.counters.sampledTokens += sampledTokens(samples);
    const answers = await dialect.answers();
    recorded = call.record ? await parts.recorder.append(call.record, samples, answers) : [];
    await dialect.end(answers);
  } catch (error) {
    if (recorded === undefined) await recordBroken(parts, call, samples);
    if (!sink.started) throw sink.signal.aborted ? clientGone(error) : error;
    await writeFailure(parts, sink, error);
    return;
  }
  if (await sink.end("data: [DONE]\n\n")) await parts.recorder.delivered(recorded);
  else parts.counters.abandoned++;
}

export function toEvent(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** What was sampled of a call that broke is kept, and never trained. */
async function recordBroken(
  parts: GatewayParts,
  call: Call,
  samples: readonly Sample[],
): Promise<void> {
  if (!call.record) return;
  try {
    await parts.recorder.append(call.record, samples, samples.map(brokenAnswer));
  } catch (error) {
    parts.log.error({ err: error }, "what was sampled of a broken call could not be recorded");
  }
}

async function writeFailure(
  parts: GatewayParts,
  sink: ResponseSink,
  error: unknown,
): Promise<void> {
  if (sink.signal.aborted) {
    parts.counters.abandoned++;
    return;
  }
  parts.counters.brokenStreams++;
  if (!HoneError.isInstance(error)) {
    parts.log.error({ err: error }, "a stream failed in a way that was not foreseen");
  }
  const failure = HoneError.isInstance(error)
    ? error
    : new HoneError("The server failed. Its log has the reason.", { code: "internal_error" });
  await sink.end(toEvent(failure.toEnvelope()));
}
