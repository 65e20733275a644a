import { HoneError, newId } from "@hone/core";
import type { Logger } from "pino";
import type { Sampler, EngineRequest } from "../ports/engine.ts";
import type { Ledger, LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyLease } from "../ports/rollouts.ts";
import type { Ask, ChatAsk } from "./ask.ts";
import type { GatewayCounters } from "./counters.ts";
import { endsOfOneCall, heldTo } from "./held.ts";
import { continuePlain, plainMessages, promptIds } from "./plain-prompt.ts";
import { checkLength, shownTexts, tooLong } from "./prompt-length.ts";
import { makePrompt, type Prompt } from "../conversation/prompt.ts";
import type { AskRecord, Recorder } from "./recorder.ts";
import type { ResponseSink } from "./response-sink.ts";
import type { IsAnswer, Retries } from "./retries.ts";
import { answersChat, answersIds } from "./same-ask.ts";
import type { TokenTable } from "./token-table.ts";

/** What every request is answered with. */
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
export interface Requester {
  lease: PolicyLease;
  sink: ResponseSink;
  /** The SDK says that it sends the same request again. */
  retry: boolean;
  /** Equal for every try of the same request. */
  key: string;
}

/** An ask that is ready to be sampled. */
export interface PreparedAsk {
  ask: Ask;
  engineRequest: EngineRequest;
  /** `cmpl_…`: names the answer, in the ledger and in what the agent gets. */
  answerId: string;
  /** Null outside a rollout: then nothing is recorded. */
  record: AskRecord | null;
  policy: string;
  /** Complete once the first token has come. */
  headers: Record<string, string>;
}

/** Below this, engines sample greedily or at another temperature than was asked for. */
const leastTemperature = 0.01;

/** Makes the prompt, and settles what the ask left open. */
export async function prepareAsk(
  parts: GatewayParts,
  requester: Requester,
  ask: Ask,
): Promise<PreparedAsk> {
  const { engine, renderer, counters } = parts;
  const format = ask.kind === "chat" ? await heldTo(renderer, ask) : null;
  const [{ maxModelLen }, info] = await Promise.all([engine.info(), renderer.info()]);
  const ends = endsOfOneCall(ask, format, info);
  checkLength(textsOf(ask), maxModelLen, info, ask);
  const { prompt, messages } = await promptOf(parts, requester, ask);
  const room = maxModelLen - prompt.ids.length;
  if (room < 1) {
    const least = `The prompt has ${prompt.ids.length} tokens, and the context holds ${maxModelLen}`;
    throw tooLong(`${least}, of which at least one is for the answer.`, ask);
  }
  // The engine would make 0 of a temperature this small. The record has to say what was sampled at.
  const temperature = ask.temperature < leastTemperature ? 0 : ask.temperature;
  const { kind, topP, seed } = ask;
  const { policy, rolloutId, group } = requester.lease;
  counters.promptTokens += prompt.ids.length;
  if (prompt.splitReason) counters.splits[prompt.splitReason]++;
  const answerId = newId("cmpl");
  const headers: Record<string, string> = {
    "x-hone-policy": headerText(policy),
    // The context ends before the tokens that were asked for: tells the client where the answer will be cut.
    ...((ask.maxTokens ?? 0) > room && { "x-hone-max-tokens": String(room) }),
  };
  return {
    ask,
    answerId,
    engineRequest: {
      model: policy,
      affinity: rolloutId === null ? null : { rollout: rolloutId, group },
      prompt: prompt.ids,
      n: ask.n,
      maxTokens: Math.min(ask.maxTokens ?? room, room),
      temperature,
      topP,
      seed,
      stop: [...ask.stop, ...ends.strings],
      stopTokenIds: [...info.stopTokenIds, ...ends.ids],
      topLogprobs: ask.logprobs ?? 0,
      ...(ask.kind === "text" && ask.promptLogprobs && { promptLogprobs: true }),
      format,
      stream: ask.stream,
      signal: requester.sink.signal,
      onEngine: (name) => void (headers["x-hone-engine"] = headerText(name)),
    },
    record:
      rolloutId === null
        ? null
        : {
            answerId,
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
    headers,
  };
}

function textsOf(ask: Ask): string[] {
  if (ask.kind === "chat") return shownTexts(ask.messages);
  return typeof ask.prompt === "string" ? [ask.prompt] : [];
}

/** How many tokens the prompt of a chat has. Nothing is sampled, and nothing recorded. */
export async function countPrompt(
  parts: Pick<GatewayParts, "renderer" | "ledger">,
  { rolloutId }: Pick<PolicyLease, "rolloutId">,
  asked: Pick<ChatAsk, "messages" | "tools">,
): Promise<number> {
  const earlier = rolloutId === null ? [] : await parts.ledger.list(rolloutId);
  return (await makePrompt(parts.renderer, earlier, asked)).ids.length;
}

/** The prompt, and the messages that stand for it in the ledger. */
async function promptOf(
  parts: GatewayParts,
  requester: Requester,
  ask: Ask,
): Promise<{ prompt: Prompt; messages: LedgerCompletion["messages"] }> {
  if (ask.kind === "chat") {
    const earlier = await earlierOf(parts, requester, answersChat(ask));
    return { prompt: await makePrompt(parts.renderer, earlier, ask), messages: ask.messages };
  }
  const ids = await promptIds(parts.renderer, ask.prompt);
  const plain = continuePlain(ids, await earlierOf(parts, requester, answersIds(ids)));
  // Messages are for the ledger, and outside of a rollout nothing is recorded.
  const recorded = requester.lease.rolloutId !== null;
  const messages = recorded ? await plainMessages(parts.tokens, ask.prompt, plain) : [];
  return { prompt: plain.prompt, messages };
}

/** The completions of the rollout so far. Where the request is a retry, the answers to the try before are taken back. */
async function earlierOf(
  parts: GatewayParts,
  { lease, retry, key }: Requester,
  isAnswer: IsAnswer,
): Promise<readonly LedgerCompletion[]> {
  const { rolloutId } = lease;
  if (rolloutId === null) return [];
  const earlier = await parts.ledger.list(rolloutId);
  if (retry) {
    const unreceived = parts.retries.unreceived(rolloutId, key, isAnswer, earlier);
    if (unreceived.length > 0) await parts.ledger.markUnreceived(unreceived);
    parts.counters.retried += unreceived.length;
  }
  return earlier;
}

/**
 * A header may only hold ASCII, and a base may be named after a folder with any name. Everything else, and `%`, is
 * written so that `decodeURIComponent` gives the name back.
 */
function headerText(name: string): string {
  return name.replace(/[^\x20-\x24\x26-\x7e]+/gu, (part) => encodeURIComponent(part));
}

/** For a request whose client has left: this is no failure of the server. */
export function clientGone(cause?: unknown): HoneError {
  return new HoneError("The client closed the connection.", { code: "aborted", cause });
}
