import { messageSchema, type ChatMessage, type ChatTool } from "@hone/core";
import { createParser } from "eventsource-parser";
import type { Fetch } from "./connection-settings.ts";
import type { CallCounter } from "./rollout-context.ts";

/** A chat completion as it was asked for and answered. */
export interface RecordedCall {
  messages: ChatMessage[];
  tools: ChatTool[] | null;
  answer: ChatMessage;
  promptTokens: number;
  completionTokens: number;
}

export interface RecordingFetch {
  fetch: Fetch;
  /** In the order of the answers. Only those that were read to their end. */
  readonly calls: readonly RecordedCall[];
}

interface Delta {
  role?: string;
  content?: string | null;
  reasoning_content?: string | null;
  tool_calls?: {
    index: number;
    id?: string;
    function?: { name?: string; arguments?: string };
  }[];
}

interface Reply {
  choices?: { index: number; message?: Delta; delta?: Delta }[];
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
}

/**
 * A fetch that keeps what passes through it: where no server of ours keeps a ledger, this is where the
 * messages of a trajectory come from. It changes no byte.
 */
export function recordCalls(
  fetch: Fetch,
  signal: AbortSignal,
  counter: CallCounter,
): RecordingFetch {
  const calls: RecordedCall[] = [];
  return {
    calls,
    async fetch(input, init) {
      const end = counter.begin();
      let over = true;
      try {
        const both = init?.signal ? AbortSignal.any([init.signal, signal]) : signal;
        const response = await fetch(input, { ...init, signal: both });
        const asked = readRequest(init?.body);
        if (!asked || !response.ok || !response.body) return response;
        const streamed = response.headers.get("content-type")?.startsWith("text/event-stream");
        const reader = streamed ? streamReader() : wholeReader();
        over = false;
        const watched = watch(response.body, {
          part: (bytes) => reader.feed(bytes),
          broken: () => void (signal.aborted || end()),
          over() {
            // Also of a reader that leaves at [DONE] and does not wait for the last byte.
            const answer = reader.end();
            if (answer) calls.push({ ...asked, ...answer });
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

/** The same bytes; `over` is called once, at the end or when the reader leaves. A broken body is not over. */
function watch(
  body: NonNullable<Response["body"]>,
  on: { part(bytes: Uint8Array): void; over(): void; broken(): void },
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let ended = false;
  const over = (): void => {
    if (!ended) on.over();
    ended = true;
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) {
          over();
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
      over();
      await reader.cancel(reason);
    },
  });
}

function readRequest(body: unknown): Pick<RecordedCall, "messages" | "tools"> | null {
  if (typeof body !== "string") return null;
  try {
    const { messages, tools } = JSON.parse(body) as { messages?: unknown; tools?: ChatTool[] };
    if (!Array.isArray(messages)) return null;
    return { messages: messages as ChatMessage[], tools: tools ?? null };
  } catch {
    return null;
  }
}

type Answer = Pick<RecordedCall, "answer" | "promptTokens" | "completionTokens">;
interface Reader {
  feed(bytes: Uint8Array): void;
  end(): Answer | null;
}

function wholeReader(): Reader {
  const decoder = new TextDecoder();
  let text = "";
  return {
    feed: (bytes) => void (text += decoder.decode(bytes, { stream: true })),
    end() {
      const reply = parse(text + decoder.decode());
      return answerOf(reply?.choices?.find(({ index }) => index === 0)?.message, reply);
    },
  };
}

function streamReader(): Reader {
  const decoder = new TextDecoder();
  const message: Delta & { content: string } = { content: "", tool_calls: [] };
  let usage: NonNullable<Reply["usage"]> | null = null;
  let done = false;
  const parser = createParser({
    onEvent({ data }) {
      if (data === "[DONE]") {
        done = true;
        return;
      }
      const reply = parse(data);
      usage = reply?.usage ?? usage;
      addDelta(message, reply?.choices?.find(({ index }) => index === 0)?.delta);
    },
  });
  return {
    feed: (bytes) => parser.feed(decoder.decode(bytes, { stream: true })),
    end: () => (done ? answerOf(message, { usage }) : null),
  };
}

function addDelta(message: Delta & { content: string }, delta: Delta | undefined): void {
  if (!delta) return;
  message.content += delta.content ?? "";
  if (delta.reasoning_content) {
    message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
  }
  for (const { index, id, function: called } of delta.tool_calls ?? []) {
    const call = ((message.tool_calls ??= [])[index] ??= { index, function: {} });
    if (id) call.id = id;
    call.function = {
      name: (call.function?.name ?? "") + (called?.name ?? ""),
      arguments: (call.function?.arguments ?? "") + (called?.arguments ?? ""),
    };
  }
}

function answerOf(message: Delta | undefined, reply: Reply | null): Answer | null {
  const calls = message?.tool_calls?.map(({ id, function: called }) => ({
    id,
    type: "function",
    function: called,
  }));
  const parsed = messageSchema.safeParse({
    role: "assistant",
    content: message?.content ?? null,
    ...(calls && calls.length > 0 ? { tool_calls: calls } : {}),
    ...(message?.reasoning_content ? { reasoning_content: message.reasoning_content } : {}),
  });
  if (!message || !parsed.success) return null;
  return {
    answer: parsed.data,
    promptTokens: reply?.usage?.prompt_tokens ?? 0,
    completionTokens: reply?.usage?.completion_tokens ?? 0,
  };
}

function parse(text: string): Reply | null {
  try {
    return JSON.parse(text) as Reply;
  } catch {
    return null;
  }
}
