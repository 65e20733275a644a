import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import type { Sampler, EngineRequest, JsonFormat } from "../ports/engine.ts";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyLease } from "../ports/rollouts.ts";
import type { Ask } from "./ask.ts";
import type { GatewayCounters } from "./counters.ts";
import { continuePlain, plainMessages, promptIds } from "./plain-prompt.ts";
import { checkLength, shownTexts, tooLong } from "./prompt-length.ts";
import { makePrompt, type Prompt } from "./prompt.ts";
import type { CallRecord, Recorder } from "./recorder.ts";
import type { ResponseSink } from "./response-sink.ts";
import type { IsAnswer, Retries } from "./retries.ts";
import { answersChat, answersIds, keyOf } from "./same-ask.ts";
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

/** Who asks, and where the answer goes. */
export interface Caller {
  lease: PolicyLease;
  sink: ResponseSink;
  /** The SDK says that it sends the same request again. */
  retry: boolean;
}

/** An ask that is ready to be sampled. */
export interface Call {
  ask: Ask;
  engineRequest: EngineRequest;
  /** Null outside a rollout: then nothing is recorded. */
  record: CallRecord | null;
  policy: string;
  headers: Record<string, string>;
}

/** Below it engines sample greedily, or at another temperature than was asked for. */
const leastTemperature = 0.01;

/** Makes the prompt, and settles what the ask left open. */
export async function prepareCall(parts: GatewayParts, caller: Caller, ask: Ask): Promise<Call> {
  const { engine, renderer, counters } = parts;
  const format = ask.kind === "chat" ? await checkedFormat(renderer, ask.format) : null;
  const [{ maxModelLen }, info] = await Promise.all([engine.info(), renderer.info()]);
  checkLength(textsOf(ask), maxModelLen, info, ask);
  const { prompt, messages } = await promptOf(parts, caller, ask);
  const room = maxModelLen - prompt.ids.length;
  if (room < 1) {
    const least = `The prompt has ${prompt.ids.length} tokens, and the context holds ${maxModelLen}`;
    throw tooLong(`${least}, of which at least one is for the answer.`, ask);
  }
  // What is sampled at, and what is recorded: a temperature that is nearly 0 is 0.
  const temperature = ask.temperature < leastTemperature ? 0 : ask.temperature;
  const { kind, topP, seed } = ask;
  const { policy, rolloutId } = caller.lease;
  counters.promptTokens += prompt.ids.length;
  if (prompt.splitReason) counters.splits[prompt.splitReason]++;
  return {
    ask,
    engineRequest: {
      model: policy,
      prompt: prompt.ids,
      n: ask.n,
      maxTokens: Math.min(ask.maxTokens ?? room, room),
      temperature,
      topP,
      seed,
      stop: ask.stop,
      stopTokenIds: info.stopTokenIds,
      topLogprobs: ask.logprobs ?? 0,
      format,
      stream: ask.stream,
      signal: caller.sink.signal,
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
            tools: ask.kind === "chat" ? ask.tools : null,
            temperature,
            topP,
            seed,
            constrained: format !== null,
          },
    policy,
    headers: {
      "x-hone-policy": headerText(policy),
      // An answer is cut where the context ends, whatever was asked for; the client may want to know.
      ...((ask.maxTokens ?? 0) > room && { "x-hone-max-tokens": String(room) }),
    },
  };
}

/** The format as engines take it. */
async function checkedFormat(
  renderer: Renderer,
  format: JsonFormat | null,
): Promise<JsonFormat | null> {
  if (format?.type !== "json_schema") return format;
  return { ...format, schema: await renderer.checkSchema(format.schema) };
}

function textsOf(ask: Ask): string[] {
  if (ask.kind === "chat") return shownTexts(ask.messages);
  return typeof ask.prompt === "string" ? [ask.prompt] : [];
}

/** The prompt, and the messages that stand for it in the ledger. */
async function promptOf(
  parts: GatewayParts,
  caller: Caller,
  ask: Ask,
): Promise<{ prompt: Prompt; messages: LedgerCompletion["messages"] }> {
  if (ask.kind === "chat") {
    const { messages, tools } = ask;
    const earlier = await earlierOf(parts, caller, ask, answersChat(ask));
    return { prompt: await makePrompt(parts.renderer, earlier, messages, tools), messages };
  }
  const ids = await promptIds(parts.renderer, ask.prompt);
  const plain = continuePlain(ids, await earlierOf(parts, caller, ask, answersIds(ids)));
  // Only what is recorded needs them.
  const recorded = caller.lease.rolloutId !== null;
  const messages = recorded ? await plainMessages(parts.tokens, ask.prompt, plain) : [];
  return { prompt: plain.prompt, messages };
}

/** What the rollout has sampled so far. A retry takes back the answers to the try before. */
async function earlierOf(
  parts: GatewayParts,
  { lease, retry }: Caller,
  ask: Ask,
  isAnswer: IsAnswer,
): Promise<readonly LedgerCompletion[]> {
  const { rolloutId } = lease;
  if (rolloutId === null) return [];
  const earlier = await parts.ledger.list(rolloutId);
  if (retry) {
    const unreceived = parts.retries.unreceived(rolloutId, keyOf(ask), isAnswer, earlier);
    if (unreceived.length > 0) await parts.ledger.markUnreceived(unreceived);
    parts.counters.retried += unreceived.length;
  }
  return earlier;
}

/** A header holds ASCII; a base may be named after its folder. All else, and `%`, as `decodeURIComponent` reads it. */
function headerText(name: string): string {
  return name.replace(/[^\x20-\x24\x26-\x7e]+/gu, (part) => encodeURIComponent(part));
}

/** The client's own leaving is no failure of ours. */
export function clientGone(cause?: unknown): HoneError {
  return new HoneError("The client closed the connection.", { code: "aborted", cause });
}
