import {
  HoneError,
  type AssistantMessage,
  type ChatChunk,
  type TokenLogprob,
  type Usage,
} from "@hone/core";
import type { EngineChunk } from "../ports/engine.ts";
import { addChunk, brokenAnswer, createSamples, type Answer, type Sample } from "./answer.ts";
import { clientGone, type ChatCall, type GatewayParts } from "./chat-call.ts";
import type { ResponseSink } from "./response-sink.ts";
import { createTextGate, type TextGate } from "./text-gate.ts";
import { makeAnswers, usageOf } from "./whole-response.ts";

type Delta = ChatChunk["choices"][number]["delta"];

interface Stream {
  parts: GatewayParts;
  call: ChatCall;
  sink: ResponseSink;
  samples: Sample[];
  gates: TextGate[];
  /** Logprobs of tokens whose text is still held, per choice. */
  pending: TokenLogprob[][];
}

/**
 * The call as server-sent events. Headers wait for the engine's first chunk, so that a missing policy
 * or engine is an error response; after them, a failure is an error event and an end without [DONE].
 */
export async function respondStreamed(
  parts: GatewayParts,
  call: ChatCall,
  sink: ResponseSink,
): Promise<void> {
  const { markers } = await parts.renderer.info();
  const samples = createSamples(call.engineRequest.n);
  const stream: Stream = {
    parts,
    call,
    sink,
    samples,
    gates: samples.map(() => createTextGate(markers)),
    pending: samples.map(() => []),
  };
  let recorded: string[] | undefined;
  try {
    await sampleAll(stream);
    const answers = (await makeAnswers(parts, call, samples)).map((answer, i) =>
      asDelivered(stream, answer, i),
    );
    recorded = call.record ? await parts.recorder.append(call.record, samples, answers) : [];
    for (const [i, answer] of answers.entries()) await writeRest(stream, i, answer);
    if (call.request.stream_options?.include_usage) {
      await sink.write(event(call, [], usageOf(call, samples)));
    }
  } catch (error) {
    if (recorded === undefined) await recordBroken(stream);
    if (!sink.started) throw sink.signal.aborted ? clientGone(error) : error;
    await writeFailure(stream, error);
    return;
  }
  if (await sink.end("data: [DONE]\n\n")) await parts.recorder.delivered(recorded);
  else parts.counters.abandoned++;
}

async function sampleAll(stream: Stream): Promise<void> {
  const { parts, call, sink, samples } = stream;
  for await (const chunk of parts.engine.generate(call.engineRequest)) {
    addChunk(samples, chunk);
    if (!sink.started) {
      sink.start({
        ...call.headers,
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
      });
      for (const { index } of samples) {
        await writeDelta(stream, index, { role: "assistant", content: "" });
      }
    }
    await writeChunk(stream, chunk);
    if (sink.signal.aborted) throw clientGone();
  }
}

async function writeChunk(stream: Stream, chunk: EngineChunk): Promise<void> {
  const { parts, call, samples, gates, pending } = stream;
  const { index } = chunk;
  if (call.request.logprobs && chunk.tokenIds.length > 0) {
    pending[index]!.push(...(await parts.tokens.content(chunk.tokenIds, chunk.logprobs)));
  }
  const gate = gates[index]!;
  let text = gate.push(chunk.text);
  if (gate.undecided) {
    const parsed = await parts.renderer.parse(samples[index]!.ids, call.tools);
    text = gate.decide(/^\s/.test(parsed.content ?? ""));
  }
  if (text) await writeDelta(stream, index, { content: text });
}

/** The answer as the client has it: what went out cannot be taken back. */
function asDelivered(stream: Stream, answer: Answer, index: number): Answer {
  const { passed } = stream.gates[index]!;
  const content = textOf(answer.message);
  if (content.startsWith(passed)) return answer;
  stream.parts.log.warn(
    { completion: stream.call.completionId },
    "the streamed text is not the beginning of the parsed answer",
  );
  return { ...answer, message: { ...answer.message, content: passed } };
}

async function writeRest(stream: Stream, index: number, answer: Answer): Promise<void> {
  const { message, finishReason } = answer;
  const rest = textOf(message).slice(stream.gates[index]!.passed.length);
  if (message.reasoning_content) {
    await writeDelta(stream, index, { reasoning_content: message.reasoning_content });
  }
  if (rest) await writeDelta(stream, index, { content: rest });
  if (message.tool_calls?.length) {
    const calls = message.tool_calls.map((toolCall, at) => ({ index: at, ...toolCall }));
    await writeDelta(stream, index, { tool_calls: calls });
  }
  await writeDelta(stream, index, {}, finishReason);
}

function textOf(message: AssistantMessage): string {
  return typeof message.content === "string" ? message.content : "";
}

async function writeDelta(
  stream: Stream,
  index: number,
  delta: Delta,
  finishReason: Answer["finishReason"] | null = null,
): Promise<void> {
  const tokens = stream.pending[index]!.splice(0);
  await stream.sink.write(
    event(stream.call, [
      {
        index,
        delta,
        logprobs: tokens.length > 0 ? { content: tokens, refusal: null } : null,
        finish_reason: finishReason,
      },
    ]),
  );
}

function event(call: ChatCall, choices: ChatChunk["choices"], usage: Usage | null = null): string {
  const chunk: ChatChunk = {
    id: call.completionId,
    object: "chat.completion.chunk",
    created: call.created,
    model: call.policy,
    choices,
    ...(call.request.stream_options?.include_usage && { usage }),
  };
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

/** What was sampled of a call that broke is kept, and never trained. */
async function recordBroken({ parts, call, samples }: Stream): Promise<void> {
  if (!call.record) return;
  try {
    await parts.recorder.append(call.record, samples, samples.map(brokenAnswer));
  } catch (error) {
    parts.log.error({ err: error }, "what was sampled of a broken call could not be recorded");
  }
}

async function writeFailure(stream: Stream, error: unknown): Promise<void> {
  const { parts, sink } = stream;
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
  await sink.end(`data: ${JSON.stringify(failure.toEnvelope())}\n\n`);
}
