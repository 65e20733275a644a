import { HoneError, newId, type ChatRequest, type ChatTool } from "@hone/core";
import type { Logger } from "pino";
import type { Engine, EngineRequest } from "../ports/engine.ts";
import type { Ledger } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyLease } from "../ports/rollouts.ts";
import type { GatewayCounters } from "./counters.ts";
import { makePrompt } from "./prompt.ts";
import type { CallRecord, Recorder } from "./recorder.ts";
import type { ResponseSink } from "./response-sink.ts";
import type { Retries } from "./retries.ts";
import type { TokenTable } from "./token-table.ts";

/** What every call works with. */
export interface GatewayParts {
  engine: Engine;
  renderer: Renderer;
  ledger: Ledger;
  recorder: Recorder;
  tokens: TokenTable;
  retries: Retries;
  counters: GatewayCounters;
  log: Logger;
}

/** A call that is ready to be sampled. */
export interface ChatCall {
  request: ChatRequest;
  engineRequest: EngineRequest;
  /** Tools as they were rendered; null with `tool_choice: "none"`. */
  tools: readonly ChatTool[] | null;
  /** Null outside a rollout: then nothing is recorded. */
  record: CallRecord | null;
  policy: string;
  completionId: string;
  created: number;
  headers: Record<string, string>;
}

/** Below it engines sample greedily, or at another temperature than was asked for. */
const leastTemperature = 0.01;

/** What is sampled at, and what is recorded: a temperature that is nearly 0 is 0. */
function temperatureOf({ temperature }: ChatRequest): number {
  const asked = temperature ?? 1;
  return asked < leastTemperature ? 0 : asked;
}

/** What the schema cannot say: combinations that would be ignored in silence. */
export function checkRequest(request: ChatRequest): void {
  const refuse = (param: string, message: string) => {
    throw new HoneError(`${param}: ${message}`, { code: "unsupported_parameter", param });
  };
  if (request.stream_options && !request.stream) {
    refuse("stream_options", 'only with "stream": true. Leave it out, or stream.');
  }
  if (request.parallel_tool_calls === false && renderedTools(request)) {
    refuse("parallel_tool_calls", "the model may call several tools at once. Leave it out.");
  }
  const { max_tokens: old, max_completion_tokens: most } = request;
  if (old != null && most != null && old !== most) {
    refuse("max_tokens", `it is ${old}, and max_completion_tokens is ${most}. Send one of them.`);
  }
  if (request.top_logprobs != null && !request.logprobs) {
    refuse("top_logprobs", 'only with "logprobs": true. Leave it out, or ask for logprobs.');
  }
}

export function renderedTools(request: ChatRequest): readonly ChatTool[] | null {
  if (request.tool_choice === "none" || !request.tools?.length) return null;
  return request.tools;
}

/** Renders the prompt, and settles what the request left open. */
export async function prepareCall(
  parts: GatewayParts,
  request: ChatRequest,
  lease: PolicyLease,
  sink: ResponseSink,
  retry: boolean,
): Promise<ChatCall> {
  const { engine, renderer, ledger, counters } = parts;
  const tools = renderedTools(request);
  const earlier = lease.rolloutId === null ? [] : await ledger.list(lease.rolloutId);
  if (retry && lease.rolloutId !== null) {
    const asked = { messages: request.messages, tools };
    const unreceived = parts.retries.unreceived(lease.rolloutId, asked, earlier);
    if (unreceived.length > 0) await ledger.markUnreceived(unreceived);
    counters.retried += unreceived.length;
  }
  const [prompt, { maxModelLen }, { stopTokenIds }] = await Promise.all([
    makePrompt(renderer, earlier, request.messages, tools),
    engine.info(),
    renderer.info(),
  ]);
  const room = maxModelLen - prompt.ids.length;
  if (room < 1) {
    throw new HoneError(
      `The prompt has ${prompt.ids.length} tokens, and the context holds ${maxModelLen}, ` +
        "of which at least one is for the answer. Shorten the conversation.",
      { code: "context_length_exceeded", param: "messages" },
    );
  }
  const asked = request.max_completion_tokens ?? request.max_tokens ?? room;
  const temperature = temperatureOf(request);
  const topP = request.top_p ?? 1;
  const seed = request.seed ?? null;
  const { policy } = lease;
  counters.promptTokens += prompt.ids.length;
  if (prompt.splitReason) counters.splits[prompt.splitReason]++;
  return {
    request,
    engineRequest: {
      model: policy,
      prompt: prompt.ids,
      n: request.n ?? 1,
      maxTokens: Math.min(asked, room),
      temperature,
      topP,
      seed,
      stop: typeof request.stop === "string" ? [request.stop] : (request.stop ?? []),
      stopTokenIds,
      stream: request.stream === true,
      signal: sink.signal,
    },
    tools,
    record:
      lease.rolloutId === null
        ? null
        : { rolloutId: lease.rolloutId, policy, prompt, request, tools, temperature, topP, seed },
    policy,
    completionId: newId("chatcmpl"),
    created: Math.floor(Date.now() / 1000),
    headers: { "x-hone-policy": policy },
  };
}

/** The client's own leaving is no failure of ours. */
export function clientGone(cause?: unknown): HoneError {
  return new HoneError("The client closed the connection.", { code: "aborted", cause });
}
