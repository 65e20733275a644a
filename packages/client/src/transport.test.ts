import { HoneError, modelInfoSchema } from "@hone/core";
import { afterEach, describe, expect, it } from "vitest";
import { resolveSettings } from "./connection-settings.ts";
import { modelInfo, send, sendError, startRouteServer } from "./route-server.test-support.ts";
import type { Handler, RouteServer } from "./route-server.test-support.ts";
import { backoffMs, Transport } from "./transport.ts";

let server: RouteServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Asks once; the answers come in this order. */
async function ask(answers: Handler[], options: { maxRetries?: number; timeoutMs?: number } = {}) {
  let next = 0;
  server = await startRouteServer([["GET /x", (q, r) => answers[next++]?.(q, r)]]);
  const transport = new Transport(
    resolveSettings({ baseURL: server.url, apiKey: "the-key", ...options }),
  );
  return await transport.json("GET", "/x", modelInfoSchema).then(
    (value) => ({ value, error: null, requests: next }),
    (error: unknown) => ({ value: null, error: error as HoneError, requests: next }),
  );
}

const soon = { "retry-after-ms": "1" };
const ok: Handler = (_, response) => send(response, modelInfo());
const fail =
  (status: number, headers = {}, code = "other"): Handler =>
  (_, response) =>
    sendError(response, status, code, "no", { ...soon, ...headers });

describe("retries", () => {
  it.each([408, 429, 500, 503])("asks again after %i", async (status) => {
    const { value, requests } = await ask([fail(status), ok]);
    expect(value?.name).toBe("m");
    expect(requests).toBe(2);
  });

  it.each([400, 401, 404, 409, 422])("does not after %i", async (status) => {
    const { error, requests } = await ask([fail(status), ok]);
    expect(error?.status).toBe(status);
    expect(requests).toBe(1);
  });

  it("does after a 409 when x-should-retry says so, and not after a 503 when it says no", async () => {
    expect((await ask([fail(409, { "x-should-retry": "true" }), ok])).requests).toBe(2);
    await server?.close();
    expect((await ask([fail(503, { "x-should-retry": "false" }), ok])).requests).toBe(1);
  });

  it("asks again when the connection is cut", async () => {
    const cut: Handler = (_, response) => response.destroy();
    const { value, requests } = await ask([cut, ok]);
    expect(value).not.toBeNull();
    expect(requests).toBe(2);
  });

  it("waits as long as retry-after says", async () => {
    const began = performance.now();
    const limited: Handler = (_, response) =>
      sendError(response, 429, "too_many_requests", "no", { "retry-after": "0.6" });
    expect((await ask([limited, ok])).requests).toBe(2);
    // No timer is early, and the longest first pause of its own is 500 ms.
    expect(performance.now() - began).toBeGreaterThan(590);
  });

  it("gives up after maxRetries, with the server's code and message", async () => {
    const { error, requests } = await ask(Array(9).fill(fail(503, {}, "engine_unavailable")), {
      maxRetries: 2,
    });
    expect(requests).toBe(3);
    expect(error).toMatchObject({ code: "engine_unavailable", status: 503 });
  });

  it("takes silence for a timeout and names the option", async () => {
    const { error } = await ask([() => {}], { maxRetries: 0, timeoutMs: 50 });
    expect(error?.code).toBe("timeout");
    expect(error?.message).toContain("timeoutMs");
  });

  it("backs off by doubling to 8 s, less at most a quarter", () => {
    expect([0, 1, 4, 9].map((retry) => backoffMs(retry, () => 0))).toEqual([500, 1000, 8000, 8000]);
    expect(backoffMs(0, () => 1)).toBe(375);
  });
});

describe("answers", () => {
  it("reads a proxy's page as an error of its status", async () => {
    const page: Handler = (_, response) => response.writeHead(404).end("<html>");
    expect((await ask([page])).error?.code).toBe("not_found");
  });

  it("says when a server is none of Hone's", async () => {
    expect((await ask([(_, r) => r.end("hello")])).error?.code).toBe("invalid_response");
    await server?.close();
    expect((await ask([(_, r) => send(r, { hello: 1 })])).error?.code).toBe("invalid_response");
  });

  it("follows no redirect: it would carry the key away", async () => {
    const away: Handler = (_, r) => r.writeHead(307, { location: "http://127.0.0.1:1/" }).end();
    expect((await ask([away], { maxRetries: 0 })).error?.code).toBe("connection_failed");
  });
});
