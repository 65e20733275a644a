import { inspect } from "node:util";
import type { HoneError } from "@hone/core";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { backoffMs, retryAfterMs } from "./retry.ts";
import { send, sendError, startServer } from "./route-server.test-support.ts";
import type { Handler } from "./route-server.test-support.ts";
import { Transport } from "./transport.ts";

const modelSchema = z.object({ name: z.string() });
let server: Awaited<ReturnType<typeof startServer>> | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Asks once; the answers come in this order. */
async function ask(answers: Handler[], options: { maxRetries?: number; timeoutMs?: number } = {}) {
  let next = 0;
  server = await startServer((q, r) => answers[next++]?.(q, r));
  const settings = { fetch: globalThis.fetch, maxRetries: 4, timeoutMs: 60_000, ...options };
  const transport = new Transport({ serverURL: server.url, apiKey: "the-key", ...settings });
  return await transport.json("GET", "/x", modelSchema).then(
    (value) => ({ value, error: null, requests: next }),
    (error: unknown) => ({ value: null, error: error as HoneError, requests: next }),
  );
}

const soon = { "retry-after-ms": "1" };
const ok: Handler = (_, response) => send(response, { name: "m" });
const fail =
  (status: number, headers = {}, code = "other"): Handler =>
  (_, response) =>
    sendError(response, status, code, { ...soon, ...headers });

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
      sendError(response, 429, "too_many_requests", { "retry-after": "0.6" });
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

  it("waits no longer than its limit for a fetch that knows no signal", async () => {
    const deaf: typeof fetch = () => new Promise(() => undefined);
    const settings = { serverURL: "http://h", apiKey: "the-key", maxRetries: 0, timeoutMs: 30 };
    const asked = new Transport({ ...settings, fetch: deaf }).json("GET", "/x", modelSchema);
    await expect(asked).rejects.toMatchObject({ code: "timeout" });
    const signal = AbortSignal.timeout(1);
    const patient = new Transport({ ...settings, timeoutMs: 60_000, fetch: deaf });
    await expect(patient.json("GET", "/x", modelSchema, { signal })).rejects.toMatchObject({
      code: "aborted",
    });
  });

  it.each([
    [{ "retry-after-ms": "250", "retry-after": "9" }, 250],
    [{ "retry-after": "1.5" }, 1500],
    [{ "retry-after": "Fri, 01 Jan 2100 00:00:00 GMT" }, expect.any(Number)],
    [{ "retry-after": "Sat, 01 Jan 2000 00:00:00 GMT" }, null],
    [{ "retry-after-ms": "soon", "retry-after": "soon" }, null],
    [{}, null],
  ])("reads how long it is to wait: %j", (headers, wait) => {
    expect(retryAfterMs(new Headers(headers as Record<string, string>))).toEqual(wait);
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

  it("shows what a server said that is none of Hone's, without the key", async () => {
    const said: Handler = (_, r) => r.writeHead(400).end(`${"x".repeat(490)} the-key the-key`);
    const { error } = await ask([said]);
    expect(error?.message).toContain("x [hidden]");
    expect(inspect(error, { depth: 9 })).not.toContain("the-k");
  });

  it("follows no redirect: it would carry the key away", async () => {
    const away: Handler = (_, r) => r.writeHead(307, { location: "http://127.0.0.1:1/" }).end();
    expect((await ask([away], { maxRetries: 0 })).error?.code).toBe("connection_failed");
  });
});
