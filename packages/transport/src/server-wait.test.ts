import type { OperationEvent } from "@hone/core";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import type { Fetch } from "./connection-settings.ts";
import { followOperation } from "./follow-operation.ts";
import { send, sendError, startServer } from "./route-server.test-support.ts";
import type { Handler } from "./route-server.test-support.ts";
import { ServerWait } from "./server-wait.ts";
import { Transport } from "./transport.ts";

const named = z.object({ name: z.string() });
const health = (status: string) => ({ status, base: "b", components: {} });
const started: Handler = (request, response) =>
  request.url === "/health" ? send(response, health("ok")) : send(response, { name: "m" });

let server: Awaited<ReturnType<typeof startServer>> | undefined;
let back: Promise<void> | undefined;
afterEach(async () => {
  await back;
  await server?.close();
  server = undefined;
});

/** A transport that waits, and what was told meanwhile. */
function waiting(
  serverURL: string,
  { limitMs = 60_000, fetch = globalThis.fetch, maxRetries = 4 } = {},
) {
  const told: string[] = [];
  const run = new AbortController();
  const settings = { serverURL, apiKey: "the-key", fetch, maxRetries, timeoutMs: 60_000 };
  const tell = (message: string) => void told.push(message);
  const wait = new ServerWait(settings, { limitMs, tell, signal: run.signal });
  const transport = new Transport(settings, wait);
  const ask = () => transport.json("GET", "/x", named, { signal: run.signal });
  return { transport, wait, told, run, ask };
}

describe("a server that is away", () => {
  it("is waited for until it has started, by all that ask, and is told of once", async () => {
    let starting = 0;
    server = await startServer((request, response) => {
      if (request.url !== "/health") return send(response, { name: "m" });
      starting += 1;
      return starting > 1 ? send(response, health("ok")) : send(response, health("starting"), 503);
    });
    const { ask, told, wait } = waiting(server.url, { maxRetries: 0 });
    back = server.away(() => wait.outages === 1);
    expect(await Promise.all([ask(), ask(), ask()])).toEqual([
      { name: "m" },
      { name: "m" },
      { name: "m" },
    ]);
    expect(starting).toBe(2);
    expect(wait.outages).toBe(1);
    expect(told).toEqual([
      expect.stringMatching(/^The server at \S+ does not answer \(.*ECONN.*\)\. .* up to 60 s\.$/),
      expect.stringMatching(/^The server at \S+ is back after \d+ s\.$/),
    ]);
  });

  it("is away too where a proxy answers in its place", async () => {
    let asked = 0;
    server = await startServer((request, response) => {
      asked += 1;
      return asked > 2 ? started(request, response) : response.writeHead(502).end("Bad gateway");
    });
    const { ask, told } = waiting(server.url, { maxRetries: 0 });
    expect(await ask()).toEqual({ name: "m" });
    expect(told[0]).toContain("does not answer (HTTP status 502)");
  });

  it("is given up after the limit, and then at once by everybody", async () => {
    server = await startServer(started);
    await server.close();
    const { ask, told } = waiting(server.url, { limitMs: 200 });
    const [first, second] = [await ask().catch(String), await ask().catch(String)];
    expect(first).toMatch(/did not answer for 0 s .*Start it again on its data directory/);
    expect(second).toBe(first);
    expect(told).toHaveLength(1);
  });

  it("is not told to be started again where it is starting", async () => {
    server = await startServer((_, response) => send(response, health("starting"), 503));
    const { wait, told } = waiting(server.url, { limitMs: 200 });
    const error = await wait.untilThere().catch(String);
    expect(error).toMatch(/is still starting after 0 s\. GET \/health says .*--engine joined/);
    expect(error).not.toContain("Start it again");
    expect(told).toEqual([expect.stringMatching(/is starting\. Waiting for it, up to 0 s\.$/)]);
  });

  it("is given up where it goes away again and again and nothing ends in between", async () => {
    let asked = 0;
    // Every second request finds nobody.
    const fetch: Fetch = async () => {
      asked += 1;
      if (asked % 2 === 1) throw new TypeError("fetch failed", { cause: new Error("killed") });
      return Response.json(health("ok"));
    };
    const { wait } = waiting("http://hone", { fetch });
    for (const progressed of [true, false, false]) {
      expect(await wait.untilThere()).toBe(true);
      if (progressed) wait.progressed();
    }
    expect(await wait.untilThere()).toBe(true);
    await expect(wait.untilThere()).rejects.toThrow(/went away 4 times, and no rollout .*killed/);
  });

  it("is waited for no longer than the run", async () => {
    server = await startServer(started);
    await server.close();
    const { ask, run } = waiting(server.url);
    setTimeout(() => run.abort(), 50);
    await expect(ask()).rejects.toMatchObject({ code: "aborted" });
  });
});

describe("a server that is there", () => {
  it("is not waited for where one connection breaks", async () => {
    let asked = 0;
    server = await startServer((request, response) => {
      if (request.url === "/health") return send(response, health("degraded"), 503);
      asked += 1;
      return asked === 1 ? response.destroy() : started(request, response);
    });
    const { ask, told, wait } = waiting(server.url);
    expect(await ask()).toEqual({ name: "m" });
    expect([told, wait.outages]).toEqual([[], 0]);
  });

  it.each([
    ["that a client of this version does not know", { status: "draining", base: "b" }, false],
    ["of a proxy", { status: 503, error: "no" }, true],
    ["of a proxy that says it in a word", { status: "Failure", code: 503 }, true],
  ])("is known by its word in /health: one %s", async (_, answer, isAway) => {
    server = await startServer((_request, response) => send(response, answer, 503));
    const { wait, told } = waiting(server.url, { limitMs: 100 });
    expect(await wait.untilThere().catch(String)).toEqual(
      isAway ? expect.stringContaining("HTTP status 503") : false,
    );
    expect(told).toHaveLength(isAway ? 1 : 0);
  });

  it("keeps its errors and their number of retries", async () => {
    const asked: string[] = [];
    server = await startServer((request, response) => {
      asked.push(request.url ?? "");
      if (request.url === "/health") return send(response, health("ok"));
      return sendError(response, 503, "engine_unavailable", { "retry-after-ms": "1" });
    });
    const { ask, told } = waiting(server.url, { maxRetries: 2 });
    await expect(ask()).rejects.toMatchObject({ code: "engine_unavailable" });
    expect(asked.filter((path) => path === "/x")).toHaveLength(3);
    expect(told).toEqual([]);
  });
});

describe("an operation", () => {
  const operation = { id: "op_1", object: "operation", model: "m", type: "train" };
  const state = { clientToken: "t", fromStep: 0, result: null, error: null, createdAt: 1 };
  const events: OperationEvent[] = [
    { type: "started", seq: 1, at: 1, step: 1 },
    { type: "progress", seq: 2, at: 2, done: 1, total: 1, tokens: 10 },
    {
      ...{ type: "ended", seq: 3, at: 3 },
      operation: { ...operation, ...state, status: "succeeded" } as never,
    },
  ];
  const text = (event: OperationEvent) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`;

  async function follow(limitMs: number, comesBack: boolean) {
    const after: unknown[] = [];
    server = await startServer((request, response) => {
      if (request.url === "/health") return send(response, health("ok"));
      if (!request.url?.endsWith("/events")) {
        return send(response, { ...operation, ...state, status: "running" });
      }
      after.push(request.headers["last-event-id"]);
      response.writeHead(200, { "content-type": "text/event-stream" });
      if (after.length > 1) return response.end(events.slice(1).map(text).join(""));
      return response.write(text(events[0]!), leave);
    });
    const { transport, wait } = waiting(server.url, { limitMs });
    const leave = () => {
      back = comesBack ? server?.away(() => wait.outages === 1) : server?.close();
    };
    const seen: OperationEvent[] = [];
    // Longer away than without the wait.
    for await (const event of followOperation(transport, "op_1", { giveUpAfterMs: 1 })) {
      seen.push(event);
    }
    return { seen, after };
  }

  it("is followed across the server's absence, each event once", async () => {
    expect(await follow(60_000, true)).toEqual({ seen: events, after: [undefined, "1"] });
  });

  it("is followed further where one error follows an absence longer than it waits", async () => {
    let [asked, opened] = [0, 0];
    server = await startServer((request, response) => {
      if (request.url === "/health") return send(response, health("ok"));
      if (!request.url?.endsWith("/events")) {
        asked += 1;
        return asked === 1 ? response.destroy() : sendError(response, 500, "internal_error");
      }
      opened += 1;
      response.writeHead(200, { "content-type": "text/event-stream" });
      return response.end(opened === 1 ? "" : events.map(text).join(""));
    });
    let looked = 0;
    // Nobody is there for the first two looks, which takes longer than following waits.
    const fetch: Fetch = async (input, init) => {
      if (input === `${server?.url}/health` && (looked += 1) < 3) throw new TypeError("gone");
      return await globalThis.fetch(input, init);
    };
    const { transport } = waiting(server.url, { fetch });
    const seen: OperationEvent[] = [];
    for await (const event of followOperation(transport, "op_1", { giveUpAfterMs: 300 })) {
      seen.push(event);
    }
    expect([seen, asked, opened]).toEqual([events, 2, 2]);
  });

  it("is given up with what the wait says", async () => {
    await expect(follow(200, false)).rejects.toThrow(/did not answer for 0 s .* data directory/);
  });
});
