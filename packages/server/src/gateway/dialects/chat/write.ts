import type { AssistantMessage, ChatChunk, TokenLogprob, Usage } from "@hone/core";
import type { EngineChunk } from "../../../ports/engine.ts";
import { createSamples, type Answer, type Sample } from "../../answer.ts";
import type { GatewayParts } from "../../call.ts";
import type { ChatCall } from "./read.ts";
import type { ResponseSink } from "../../response-sink.ts";
import { respondStreamed, toEvent } from "../../streamed.ts";
import { createTextGate, type TextGate } from "../../text-gate.ts";
import { makeAnswers, usageOf } from "../../whole.ts";

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

/** A chat as server-sent events: content as it comes, tool calls and reasoning once they are parsed. */
export async function respondChatStreamed(
  parts: GatewayParts,
  call: ChatCall,
  sink: ResponseSink,
): Promise<void> {
  const { format } = call.engineRequest;
  const markers = format ? [] : (await parts.renderer.info()).markers;
  const samples = createSamples(call.engineRequest.n);
  const stream: Stream = {
    parts,
    call,
    sink,
    samples,
    gates: samples.map(() => createTextGate(markers)),
    pending: samples.map(() => []),
  };
  await respondStreamed(parts, call, sink, samples, {
    async begin() {
      for (const { index } of samples) {
        await writeDelta(stream, index, { role: "assistant", content: "" });
      }
    },
    chunk: (chunk) => writeChunk(stream, chunk),
    answers: async () =>
      (await makeAnswers(parts, call, samples)).map((answer, i) => asDelivered(stream, answer, i)),
    async end(answers) {
      for (const [i, answer] of answers.entries()) await writeRest(stream, i, answer);
      if (call.request.stream_options?.include_usage) {
        await sink.write(event(call, [], usageOf(call, samples)));
      }
    },
  });
}

async function writeChunk(stream: Stream, chunk: EngineChunk): Promise<void> {
  const { parts, call, samples, gates, pending } = stream;
  const { index } = chunk;
  if (call.request.logprobs && chunk.tokenIds.length > 0) {
    const { tokenIds: ids, logprobs, topLogprobs: top = [] } = chunk;
    pending[index]!.push(...(await parts.tokens.content({ ids, logprobs, top })));
  }
  const gate = gates[index]!;
  let text = gate.push(chunk.text);
  if (gate.undecided) {
    const keep =
      call.engineRequest.format ||
      /^\s/.test((await parts.renderer.parse(samples[index]!.ids, call.callable)).content ?? "");
    text = gate.decide(Boolean(keep));
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
  return toEvent(chunk);
}
