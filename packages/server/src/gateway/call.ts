import { HoneError, type ChatRequest, type IdPrefix, newId } from "@hone/core";
import type { Logger } from "pino";
import type { Sampler, EngineRequest, JsonFormat } from "../ports/engine.ts";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyLease } from "../ports/rollouts.ts";
import type { GatewayCounters } from "./counters.ts";
import type { Prompt } from "./prompt.ts";
import type { CallRecord, Recorder } from "./recorder.ts";
import type { ResponseSink } from "./response-sink.ts";
import type { Repeated, Retries } from "./retries.ts";
import type { TokenTable } from "./token-table.ts";

/** What every call works with. */
export interface GatewayParts {
  engine: Sampler;
  renderer: Renderer;
  ledger: Ledger;
  recorder: Recorder;
  tokens: TokenTable;
  retries: Retries;
  counters: GatewayCounters;
  log: Logger;
}

/** A call that is ready to be sampled, in whatever dialect it came. */
export interface Call {
  engineRequest: EngineRequest;
  /** Null outside a rollout: then nothing is recorded. */
  record: CallRecord | null;
  policy: string;
  completionId: string;
  created: number;
  headers: Record<string, string>;
}

/** Who asks, and where the answer goes. */
export interface Caller {
  lease: PolicyLease;
  sink: ResponseSink;
  /** The SDK says that it sends the same request again. */
  retry: boolean;
}

export interface Asked {
  /** The keys that all dialects share. */
  request: Pick<ChatRequest, "n" | "stop" | "seed" | "temperature" | "top_p" | "stream">;
  prompt: Prompt;
  /** The request's field that holds the prompt. */
  promptParam: "messages" | "prompt";
  kind: LedgerCompletion["kind"];
  messages: LedgerCompletion["messages"];
  tools: LedgerCompletion["tools"];
  /** Null: as many as the context holds. */
  maxTokens: number | null;
  topLogprobs: number;
  format: JsonFormat | null;
  idPrefix: Extract<IdPrefix, "chatcmpl" | "cmpl">;
}

/** Below it engines sample greedily, or at another temperature than was asked for. */
const leastTemperature = 0.01;

/** Settles what the request left open. */
export async function makeCall(parts: GatewayParts, caller: Caller, asked: Asked): Promise<Call> {
  const { engine, renderer, counters } = parts;
  const { lease, sink } = caller;
  const { request, prompt, kind, messages, tools } = asked;
  const [{ maxModelLen }, { stopTokenIds }] = await Promise.all([engine.info(), renderer.info()]);
  const room = maxModelLen - prompt.ids.length;
  if (room < 1) {
    throw new HoneError(
      `The prompt has ${prompt.ids.length} tokens, and the context holds ${maxModelLen}, ` +
        `of which at least one is for the answer. Shorten the ${kind === "chat" ? "conversation" : "prompt"}.`,
      { code: "context_length_exceeded", param: asked.promptParam },
    );
  }
  const wanted = request.temperature ?? 1;
  // What is sampled at, and what is recorded: a temperature that is nearly 0 is 0.
  const temperature = wanted < leastTemperature ? 0 : wanted;
  const topP = request.top_p ?? 1;
  const seed = request.seed ?? null;
  const { policy, rolloutId } = lease;
  counters.promptTokens += prompt.ids.length;
  if (prompt.splitReason) counters.splits[prompt.splitReason]++;
  return {
    engineRequest: {
      model: policy,
      prompt: prompt.ids,
      n: request.n ?? 1,
      maxTokens: Math.min(asked.maxTokens ?? room, room),
      temperature,
      topP,
      seed,
      stop: typeof request.stop === "string" ? [request.stop] : (request.stop ?? []),
      stopTokenIds,
      topLogprobs: asked.topLogprobs,
      format: asked.format,
      stream: request.stream === true,
      signal: sink.signal,
    },
    record:
      rolloutId === null
        ? null
        : {
            rolloutId,
            policy,
            prompt,
            kind,
            messages,
            tools,
            temperature,
            topP,
            seed,
            constrained: asked.format !== null,
          },
    policy,
    completionId: newId(asked.idPrefix),
    created: Math.floor(Date.now() / 1000),
    headers: {
      "x-hone-policy": headerText(policy),
      // An answer is cut where the context ends, whatever was asked for; the client may want to know.
      ...((asked.maxTokens ?? 0) > room && { "x-hone-max-tokens": String(room) }),
    },
  };
}

/** What the rollout has sampled so far; a retry takes the answers back that the attempt before had. */
export async function earlierOf(
  parts: GatewayParts,
  { lease, retry }: Caller,
  repeated: Repeated,
): Promise<readonly LedgerCompletion[]> {
  const { rolloutId } = lease;
  if (rolloutId === null) return [];
  const earlier = await parts.ledger.list(rolloutId);
  if (retry) {
    const unreceived = parts.retries.unreceived(rolloutId, repeated, earlier);
    if (unreceived.length > 0) await parts.ledger.markUnreceived(unreceived);
    parts.counters.retried += unreceived.length;
  }
  return earlier;
}

/** A header holds ASCII; a base may be named after its folder. All else, and `%`, as `decodeURIComponent` reads it. */
export function headerText(name: string): string {
  return name.replace(/[^\x20-\x24\x26-\x7e]+/gu, (part) => encodeURIComponent(part));
}

/** The client's own leaving is no failure of ours. */
export function clientGone(cause?: unknown): HoneError {
  return new HoneError("The client closed the connection.", { code: "aborted", cause });
}
