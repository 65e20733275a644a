import type { ServerResponse } from "node:http";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { AppEnv } from "../http/env.ts";

/** Where a completion is written to. It knows whether the client is still there. */
export interface ResponseSink {
  /** Aborts when the client goes away before the response is whole. */
  readonly signal: AbortSignal;
  /** Sends the headers. Before it, an error may still become an error response. */
  start(headers: Record<string, string>): void;
  readonly started: boolean;
  /** Resolves when more may be written. In this way a slow reader slows down the engine. */
  write(text: string): Promise<void>;
  /** Ends the response. True: it was written whole. */
  end(text?: string): Promise<boolean>;
  /** What the handler returns to Hono. */
  respond(work: Promise<void>): Promise<Response>;
}

export function createSink(c: Context<AppEnv>): ResponseSink {
  const { outgoing } = c.env ?? {};
  return outgoing && "writableFinished" in outgoing
    ? createNodeSink(c, outgoing)
    : createWebSink(c);
}

/** Writes into Node's response, which takes half the CPU of a web stream, and tells in `end` whether all was written. */
function createNodeSink(c: Context<AppEnv>, outgoing: ServerResponse): ResponseSink {
  const gone = new AbortController();
  let wake: (() => void) | undefined;
  outgoing.on("drain", () => wake?.());
  outgoing.on("close", () => {
    if (!outgoing.writableFinished) gone.abort();
    wake?.();
  });
  outgoing.on("error", () => gone.abort());
  if (outgoing.destroyed) gone.abort();
  return {
    signal: gone.signal,
    get started() {
      return outgoing.headersSent;
    },
    start(headers) {
      if (gone.signal.aborted) return;
      // Headers that middleware has set are known only to the context so far.
      const all = Object.fromEntries(c.body(null, 200, headers).headers);
      outgoing.writeHead(200, all);
    },
    async write(text) {
      if (gone.signal.aborted || outgoing.write(text)) return;
      await new Promise<void>((resolve) => (wake = resolve));
      wake = undefined;
    },
    end(text) {
      if (gone.signal.aborted) return Promise.resolve(false);
      return new Promise((resolve) => {
        outgoing.once("close", () => resolve(outgoing.writableFinished));
        if (text === undefined) outgoing.end(() => resolve(true));
        else outgoing.end(text, () => resolve(true));
      });
    },
    async respond(work) {
      await work;
      return RESPONSE_ALREADY_SENT;
    },
  };
}

/** For `app.request()` and other places without Node's response. */
function createWebSink(c: Context<AppEnv>): ResponseSink {
  const gone = new AbortController();
  c.req.raw.signal.addEventListener("abort", () => gone.abort(), { once: true });
  const encoder = new TextEncoder();
  const body = new TransformStream<Uint8Array, Uint8Array>();
  const writer = body.writable.getWriter();
  writer.closed.catch(() => gone.abort());
  let response: Response | undefined;
  let announce: (() => void) | undefined;
  const headed = new Promise<void>((resolve) => (announce = resolve));
  const write = (text: string) => writer.write(encoder.encode(text)).catch(() => gone.abort());
  return {
    signal: gone.signal,
    get started() {
      return response !== undefined;
    },
    start(headers) {
      response = c.body(body.readable, 200, headers);
      announce?.();
    },
    write,
    async end(text) {
      if (text !== undefined) await write(text);
      try {
        await writer.close();
      } catch {
        gone.abort();
      }
      return !gone.signal.aborted;
    },
    async respond(work) {
      await Promise.race([headed, work]);
      // An error before the headers becomes an error response. A later one was written into the stream already.
      if (!response) await work;
      else work.catch(() => {});
      return response ?? c.body(null, 500);
    },
  };
}
