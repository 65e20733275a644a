import { setTimeout as sleep } from "node:timers/promises";
import type { OperationEvent, OperationInfo } from "@hone/core";
import { afterEach, expect, it, onTestFinished, vi } from "vitest";
import { followOperation } from "./follow-operation.ts";
import type { FollowOptions } from "./follow-operation.ts";
import { send, sendError, startServer } from "./route-server.test-support.ts";
import type { Handler } from "./route-server.test-support.ts";
import { Transport } from "./transport.ts";

const operation = (status: OperationInfo["status"]): OperationInfo => ({
  id: "op_1",
  object: "operation",
  model: "m",
  type: "train",
  clientToken: "t",
  status,
  fromStep: 0,
  result: null,
  error: null,
  createdAt: 1,
});
const events: OperationEvent[] = [
  { type: "started", seq: 1, at: 1, step: 1 },
  { type: "progress", seq: 2, at: 2, done: 1, total: 2, tokens: 10 },
  { type: "progress", seq: 3, at: 3, done: 2, total: 2, tokens: 20 },
  { type: "ended", seq: 4, at: 4, operation: operation("succeeded") },
];
const text = (event: OperationEvent) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`;

let close: (() => Promise<void>) | undefined;
afterEach(() => close?.());

/** The operation's events, from a server that streams and tells its state as the test says. */
async function follow(stream: Handler, state: Handler, options: FollowOptions = {}) {
  const server = await startServer((request, response) => {
    if (!request.url?.endsWith("/events")) return state(request, response);
    response.writeHead(200, { "content-type": "text/event-stream" });
    return stream(request, response);
  });
  close = () => server.close();
  const settings = { fetch: globalThis.fetch, maxRetries: 0, timeoutMs: 60_000 };
  const transport = new Transport({ serverURL: server.url, apiKey: "the-key", ...settings });
  const seen: OperationEvent[] = [];
  for await (const event of followOperation(transport, "op_1", options)) seen.push(event);
  return seen;
}

const running: Handler = (_, response) => send(response, operation("running"));

it("goes on after a connection that broke: each event once, and in order", async () => {
  const after: unknown[] = [];
  const seen = await follow((request, response) => {
    after.push(request.headers["last-event-id"]);
    if (after.length > 1) return response.end(events.slice(1).map(text).join(""));
    return response.write(events.slice(0, 2).map(text).join(""), () => response.destroy());
  }, running);
  expect(seen).toEqual(events);
  expect(after).toEqual([undefined, "2"]);
});

it("does not take a quiet stream for a server out of reach", async () => {
  let connections = 0;
  let asked = 0;
  // Only the clock stands still: timers run.
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const seen = await follow(
    (_, response) => {
      connections += 1;
      // Quiet for longer than it would wait for a server that is gone, but for a comment at the end.
      vi.advanceTimersByTime(300);
      response.write(": alive\n\n", () => response.destroy());
    },
    (_, response) => {
      asked += 1;
      if (asked === 1) sendError(response, 503, "x");
      else send(response, operation("succeeded"));
    },
    { giveUpAfterMs: 150 },
  );
  // Once more than it asked for the operation: what came last may still be there to be read.
  expect([seen.map(({ type }) => type), connections]).toEqual([["ended"], 3]);
});

it("takes a silent connection for dead, and gives up on a server that stays away", async () => {
  const away: Handler = (_, response) => sendError(response, 503, "x");
  const silent: Handler = () => undefined;
  const following = follow(silent, away, { idleMs: 20, giveUpAfterMs: 30 });
  await expect(following).rejects.toMatchObject({ code: "connection_failed" });
});

it("throws what asking again does not change, and ends with its signal", async () => {
  const gone: Handler = (_, response) => sendError(response, 404, "operation_not_found");
  const none: Handler = (_, response) => response.end();
  await expect(follow(none, gone)).rejects.toMatchObject({ code: "operation_not_found" });
  await close?.();
  const stop = new AbortController();
  const quiet: Handler = async () => {
    await sleep(10);
    stop.abort("enough");
  };
  await expect(follow(quiet, running, { signal: stop.signal })).rejects.toMatchObject({
    code: "aborted",
    cause: "enough",
  });
});
