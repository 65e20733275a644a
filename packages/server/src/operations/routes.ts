import {
  HoneError,
  type ListOperations,
  listOperationsSchema,
  type OperationEvent,
  type OperationList,
  submitOperationSchema,
} from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import { readQuery } from "../http/query.ts";
import type { EventLog } from "./events.ts";
import type { Operations } from "./operations.ts";

const heartbeatMs = 10_000;

export function operationRoutes(options: {
  operations: Operations;
  list: (keyId: string, model: string, query: ListOperations) => Promise<OperationList>;
  events: EventLog;
  heartbeatMs?: number | undefined;
}): Hono<AppEnv> {
  const { operations, events } = options;
  const app = new Hono<AppEnv>();
  app.post("/v1/models/:model/operations", async (c) => {
    const body = await readJson(c, submitOperationSchema);
    return c.json(await operations.submit(c.get("keyId"), c.req.param("model"), body));
  });
  app.get("/v1/models/:model/operations", async (c) => {
    const query = readQuery(c, listOperationsSchema);
    return c.json(await options.list(c.get("keyId"), c.req.param("model"), query));
  });
  app.get("/v1/operations/:id", (c) => c.json(operations.get(c.get("keyId"), c.req.param("id"))));
  app.post("/v1/operations/:id/abort", async (c) =>
    c.json(await operations.abort(c.get("keyId"), c.req.param("id"))),
  );
  app.get("/v1/operations/:id/events", (c) => {
    const { id } = operations.get(c.get("keyId"), c.req.param("id"));
    const after = lastEventId(c.req.header("last-event-id"));
    const headers = {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
    };
    // HEAD comes here too. Nobody reads its body, so a stream for it would never end.
    if (c.req.method === "HEAD") return c.body(null, 200, headers);
    const stream = eventStream(
      (signal) => events.follow(id, after, signal),
      options.heartbeatMs ?? heartbeatMs,
    );
    return c.body(stream, 200, headers);
  });
  return app;
}

function lastEventId(header: string | undefined): number {
  if (header === undefined || header === "") return 0;
  if (/^\d{1,9}$/.test(header)) return Number(header);
  throw new HoneError("Last-Event-ID is not the id of one of this operation's events.", {
    code: "invalid_request",
    param: "Last-Event-ID",
  });
}

/** Server-sent events of a log; a comment keeps the connection alive while nothing happens. */
function eventStream(
  follow: (signal: AbortSignal) => AsyncIterable<OperationEvent>,
  beatMs: number,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const gone = new AbortController();
  let heartbeat: NodeJS.Timeout | undefined;
  async function send(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    for await (const event of follow(gone.signal)) {
      if (gone.signal.aborted) return;
      const text = `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
      controller.enqueue(encoder.encode(text));
    }
    if (!gone.signal.aborted) controller.close();
  }
  return new ReadableStream<Uint8Array>({
    start(controller) {
      heartbeat = setInterval(() => controller.enqueue(encoder.encode(": alive\n\n")), beatMs);
      send(controller)
        .catch((error: unknown) => controller.error(error))
        .finally(() => clearInterval(heartbeat));
    },
    cancel() {
      clearInterval(heartbeat);
      gone.abort();
    },
  });
}
