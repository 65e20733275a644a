import {
  assistantMessage,
  printableLine,
  ProviderStream,
  readProviderAnswer,
  readProviderRequest,
} from "@hone/core";
import type { ChatMessage, ChatTool, ProviderAnswer, ProviderRequest } from "@hone/core";
import { createParser } from "eventsource-parser";
import { endedBy, type Fetch } from "@hone/transport";
import type { CallCounter } from "./rollout-context.ts";
import { warn } from "../warn.ts";

/** A completion as it was asked for and answered. */
export interface RecordedCall {
  messages: ChatMessage[];
  tools: ChatTool[] | null;
  answer: ChatMessage;
  finishReason: string | null;
  promptTokens: number;
  completionTokens: number;
}

export interface RecordingFetch {
  fetch: Fetch;
  /** The calls whose answer was read to its end, in the order of the answers. */
  readonly calls: readonly RecordedCall[];
}

/**
 * A fetch that records requests and answers, and changes no byte of them. Rollouts on another API have no ledger,
 * so the messages of their trajectories come from here.
 */
export function recordCalls(
  fetch: Fetch,
  signal: AbortSignal,
  counter: CallCounter,
): RecordingFetch {
  const calls: RecordedCall[] = [];
  /** By the answer's id at the provider: a request may name the answer that it continues instead of repeating it. */
  const byId = new Map<string, RecordedCall>();

  function keep(asked: ProviderRequest, answer: ProviderAnswer): void {
    const previous = asked.previousId === null ? undefined : byId.get(asked.previousId);
    const call: RecordedCall = {
      messages: [...(previous ? [...previous.messages, previous.answer] : []), ...asked.messages],
      tools: asked.tools,
      answer: assistantMessage(answer),
      finishReason: answer.finishReason,
      promptTokens: answer.promptTokens ?? 0,
      completionTokens: answer.completionTokens ?? 0,
    };
    calls.push(call);
    if (answer.id !== null) byId.set(answer.id, call);
  }

  return {
    calls,
    async fetch(input, init) {
      const end = counter.begin();
      let over = true;
      try {
        const both = init?.signal ? AbortSignal.any([init.signal, signal]) : signal;
        const asked = await readRequest(input, init?.body);
        const response = await fetch(input, { ...init, signal: both });
        if (!asked || !response.ok || !response.body) return response;
        const reader = bodyReader();
        over = false;
        const { body } = endedBy(both, response);
        const watched = watch(body ?? response.body, {
          part: (bytes) => reader.feed(bytes),
          broken: () => void (signal.aborted || end()),
          over(early) {
            // Also of a reader that leaves at [DONE] and does not wait for the last byte.
            const answer = reader.end();
            if (answer) keep(asked, answer);
            else if (!early) sayUnread(response.url, reader.begins());
            end();
          },
        });
        return new Response(watched, response);
      } finally {
        // A call that the rollout's end cuts stays open: it is the one that the exception names.
        if (over && !signal.aborted) end();
      }
    },
  };
}

const unread = new Set<string>();

/** Warns, once for each address, that an answer is missing from the trajectory: a reward may need to read it. */
function sayUnread(url: string, begins: string): void {
  if (unread.has(url)) return;
  unread.add(url);
  warn(
    `An answer of ${printableLine(url)} was cut off, or is of a form that ComparisonModel does not know: its message is missing from the trajectory. It begins with ${JSON.stringify(printableLine(begins))}.`,
  );
}

/** The same bytes. `over` is called once, at the end or when the reader leaves; `broken` if the body breaks off. */
function watch(
  body: NonNullable<Response["body"]>,
  on: { part(bytes: Uint8Array): void; over(early: boolean): void; broken(): void },
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let ended = false;
  const over = (early: boolean): void => {
    if (!ended) on.over(early);
    ended = true;
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) {
          over(false);
          controller.close();
        } else {
          on.part(value);
          controller.enqueue(value);
        }
      } catch (error) {
        on.broken();
        controller.error(error);
      }
    },
    async cancel(reason) {
      over(true);
      await reader.cancel(reason);
    },
  });
}

/** The request as the SDK wrote it, in whatever form; null if it does not ask for an answer, or cannot be read. */
async function readRequest(
  input: Parameters<Fetch>[0],
  body: unknown,
): Promise<ProviderRequest | null> {
  try {
    const given = body ?? (input instanceof Request ? await input.clone().text() : null);
    // These are asked for texts and pictures, and answer with no message.
    const url = input instanceof Request ? input.url : String(input);
    if (/\/(?:embeddings|moderations|images|audio|files|rerank)\b/.test(new URL(url).pathname)) {
      return null;
    }
    const text =
      given instanceof Uint8Array || given instanceof ArrayBuffer
        ? new TextDecoder().decode(given)
        : given;
    return typeof text === "string" ? readProviderRequest(JSON.parse(text)) : null;
  } catch {
    return null;
  }
}

interface Reader {
  feed(bytes: Uint8Array): void;
  /** The answer; null if the body is none, or not a whole one. */
  end(): ProviderAnswer | null;
  begins(): string;
}

const shownLength = 80;

/** Reads JSON or a stream of events. The text decides which it is, because content types are not reliable. */
function bodyReader(): Reader {
  const decoder = new TextDecoder();
  let text = "";
  return {
    feed: (bytes) => void (text += decoder.decode(bytes, { stream: true })),
    end() {
      text += decoder.decode();
      try {
        return readProviderAnswer(JSON.parse(text));
      } catch {
        return streamedAnswer(text);
      }
    },
    begins: () => text.trimStart().slice(0, shownLength),
  };
}

function streamedAnswer(text: string): ProviderAnswer | null {
  const stream = new ProviderStream();
  const parser = createParser({ onEvent: ({ data }) => stream.add(data) });
  // The last event of some ends with the stream, and not with an empty line.
  parser.feed(`${text}\n\n`);
  return stream.isDone ? stream.answer() : null;
}
