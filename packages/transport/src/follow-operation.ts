import { HoneError, operationEventSchema, operationInfoSchema } from "@hone/core";
import type { OperationEvent, OperationInfo } from "@hone/core";
import { createParser } from "eventsource-parser";
import { abortError, pause, throwIfAborted } from "./abort.ts";
import { backoffMs } from "./retry.ts";
import { readAs } from "./transport.ts";
import type { Transport } from "./transport.ts";

export interface FollowOptions {
  signal?: AbortSignal | undefined;
  /** How long the server may be out of reach before following gives up. */
  giveUpAfterMs?: number | undefined;
  /** Silence after which a connection is taken for dead. */
  idleMs?: number | undefined;
}

/**
 * The events of an operation, each one once and in order, `ended` last. A connection that drops is
 * opened again after the last event seen; where events cannot be had, the operation itself is asked. Asking waits for a
 * server that is away where the transport does, for as long as that says.
 */
export async function* followOperation(
  transport: Transport,
  operationId: string,
  options: FollowOptions = {},
): AsyncGenerator<OperationEvent, void, undefined> {
  const { signal, giveUpAfterMs = 120_000, idleMs = 60_000 } = options;
  let lastSeq: number | null = null;
  let failures = 0;
  let over = false;
  let lastContact = performance.now();
  // Also the comments that keep a quiet stream open: a long micro-batch has no events.
  const contact = () => void (lastContact = performance.now());
  for (;;) {
    let problem: unknown = null;
    const outages = transport.wait?.outages;
    try {
      for await (const event of readEvents(
        transport,
        operationId,
        lastSeq,
        idleMs,
        contact,
        signal,
      )) {
        failures = 0;
        // A server may send again what it is not sure that we have.
        if (lastSeq !== null && event.seq <= lastSeq) continue;
        lastSeq = event.seq;
        yield event;
        if (event.type === "ended") {
          transport.wait?.progressed();
          return;
        }
      }
    } catch (error) {
      problem = error;
    }
    throwIfAborted(signal);
    if (isRefusal(problem)) throw problem;

    // The stream ended before the operation did, or never began: ask the operation.
    try {
      const operation = await getOperation(transport, operationId, signal);
      lastContact = performance.now();
      if (isOver(operation)) {
        // It ended while nobody listened: its last events are there to be read.
        if (!over) {
          over = true;
          continue;
        }
        // Only the end is known: the events before it are lost with the stream.
        transport.wait?.progressed();
        yield { type: "ended", seq: (lastSeq ?? 0) + 1, at: Date.now(), operation };
        return;
      }
    } catch (error) {
      throwIfAborted(signal);
      if (isRefusal(error) || error === transport.wait?.failure) throw error;
      problem = error;
      // It was waited for and came back: the time until then is the wait's, which has a limit of its own.
      if (transport.wait?.outages !== outages) contact();
    }
    if (performance.now() - lastContact > giveUpAfterMs) {
      throw new HoneError(
        `Operation ${operationId} could not be followed for ${Math.round(giveUpAfterMs / 1000)} s. It may go on without this client: start the server again, and submit the step again with the same clientToken to get its result.`,
        { code: "connection_failed", cause: problem },
      );
    }
    await pause(backoffMs(failures), signal);
    failures += 1;
  }
}

async function getOperation(
  transport: Transport,
  operationId: string,
  signal: AbortSignal | undefined,
): Promise<OperationInfo> {
  return await transport.json("GET", `/v1/operations/${operationId}`, operationInfoSchema, {
    signal,
    maxRetries: 0,
  });
}

function isOver(operation: OperationInfo): boolean {
  return operation.status !== "queued" && operation.status !== "running";
}

/** Answers that asking again does not change. */
function isRefusal(error: unknown): boolean {
  if (!HoneError.isInstance(error)) return false;
  if (error.code === "invalid_response") return true;
  return error.status === 401 || error.status === 403 || error.status === 404;
}

async function* readEvents(
  transport: Transport,
  operationId: string,
  lastSeq: number | null,
  idleMs: number,
  contact: () => void,
  signal: AbortSignal | undefined,
): AsyncGenerator<OperationEvent, void, undefined> {
  const connection = new AbortController();
  const idle = setTimeout(
    () => connection.abort(new HoneError("The event stream went silent.", { code: "timeout" })),
    idleMs,
  );
  const both = signal ? AbortSignal.any([signal, connection.signal]) : connection.signal;
  try {
    const response = await transport.open("GET", `/v1/operations/${operationId}/events`, {
      headers: {
        accept: "text/event-stream",
        ...(lastSeq === null ? {} : { "last-event-id": String(lastSeq) }),
      },
      signal: both,
    });
    if (!response.headers.get("content-type")?.startsWith("text/event-stream") || !response.body) {
      await response.body?.cancel();
      return;
    }
    const ready: OperationEvent[] = [];
    const parser = createParser({
      onEvent: ({ data }) => ready.push(readAs(data, operationEventSchema, "The event stream")),
    });
    const decoder = new TextDecoder();
    for await (const bytes of response.body) {
      idle.refresh();
      contact();
      parser.feed(decoder.decode(bytes, { stream: true }));
      yield* ready.splice(0);
    }
  } catch (error) {
    if (both.aborted) throw abortError(both);
    throw error;
  } finally {
    clearTimeout(idle);
    // Closes the connection when the reader stops early.
    connection.abort();
  }
}
