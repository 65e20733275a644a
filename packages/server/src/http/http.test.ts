import { HoneError } from "@hone/core";
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { createApp } from "../app.ts";
import type { AppEnv } from "./env.ts";
import { readJson } from "./json.ts";

const key = "hone_the-key-of-this-test";
const schema = z.strictObject({
  name: z.string(),
  reward: z.number({ error: "a reward is a finite number or null" }).nullish(),
  mode: z.enum(["train", "eval"]).optional(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  items: z.array(z.looseObject({ text: z.string() })).optional(),
});

function app(log: string[] = []): Hono<AppEnv> {
  const routes = new Hono<AppEnv>()
    .post("/v1/echo", async (c) => c.json({ ...(await readJson(c, schema)), key: c.get("keyId") }))
    .post("/v1/small", async (c) => {
      c.set("bodyLimit", 100);
      return c.json(await readJson(c, schema));
    })
    .get("/v1/things/:id", (c) => c.json({ id: c.req.param("id") }))
    .put("/v1/things/:id", (c) => c.json({}))
    .get("/v1/throws/:what", (c) => {
      switch (c.req.param("what")) {
        case "conflict":
          throw new HoneError("Another step.", { code: "step_mismatch", param: "expectedStep" });
        case "unavailable":
          throw new HoneError("Soon.", { code: "engine_unavailable", retryAfterMs: 1500 });
        case "http":
          throw new HTTPException(404, { message: "gone" });
        default:
          throw new Error("a secret of the inside");
      }
    });
  return createApp({
    keys: [{ id: "owner", key }],
    hosts: ["hone.example"],
    origins: ["https://page.example"],
    log: pino({ level: "error" }, { write: (line: string) => void log.push(line) }),
    admit: () => undefined,
    health: () => ({ status: "ok", base: "base", components: {} }),
    metrics: async () => "",
    routes: [routes],
  });
}

const authorised = { authorization: `Bearer ${key}` };

type Body = string | Uint8Array | ReadableStream;

async function send(
  path: string,
  init: { method?: string; body?: Body; duplex?: "half"; headers?: Record<string, string> } = {},
): Promise<{ status: number; headers: Headers; body: Record<string, unknown>; error: unknown }> {
  const response = await app().request(path, {
    ...init,
    headers: { ...authorised, ...init.headers },
  });
  const body = (await response.json()) as Record<string, unknown>;
  return { status: response.status, headers: response.headers, body, error: body["error"] };
}

function post(body: Body, path = "/v1/echo"): ReturnType<typeof send> {
  return send(path, {
    method: "POST",
    body,
    headers: { "content-type": "application/json" },
    ...(body instanceof ReadableStream ? { duplex: "half" as const } : {}),
  });
}

describe("the guard", () => {
  const server = app();
  const known = server.routes
    // The page of the API is open: openapi.test.ts.
    .filter(({ method, path }) => method !== "ALL" && path !== "/docs")
    .map((route) => [route.method, route.path.replaceAll(/:\w+/g, "x")] as const);
  const all = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"].flatMap((method) =>
    ["/", "/v1/echo", "/health", "/metrics", "/nowhere", "/v1/../health"].map(
      (path) => [method, path] as const,
    ),
  );

  it.each([...known, ...all])("answers %s %s with 401 without the key", async (method, path) => {
    expect((await server.request(path, { method })).status).toBe(401);
    const wrong = { authorization: `Bearer ${key}x` };
    expect((await server.request(path, { method, headers: wrong })).status).toBe(401);
  });

  it("says how to find the key, and tells a stranger no path", async () => {
    const response = await server.request("/health");
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expect(response.headers.get("x-should-retry")).toBe("false");
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    expect(error.code).toBe("invalid_api_key");
    expect(error.message).toContain("`hone keys`");
    expect(error.message).not.toMatch(/\/(?:\w+\/)*key\b/);
    expect(error.message).toContain("HONE_API_KEY");
    expect(error.message).not.toContain(key);
  });

  it.each([
    ["Basic " + key],
    [key],
    ["Bearer"],
    [`Bearer ${key} ${key}`],
    [`Bearer ${key.slice(0, -1)}`],
  ])("refuses the authorization %j", async (authorization) => {
    expect((await server.request("/health", { headers: { authorization } })).status).toBe(401);
  });

  it("lets the key in, however the scheme is written", async () => {
    for (const scheme of ["Bearer", "bearer"]) {
      const headers = { authorization: `${scheme} ${key}` };
      expect((await server.request("/health", { headers })).status).toBe(200);
    }
  });

  it.each([
    ["127.0.0.1:80", 200],
    ["localhost", 200],
    ["[::1]:7777", 200],
    ["HONE.example:1", 200],
    ["evil.example", 403],
    ["localhost.evil.example", 403],
    ["127.0.0.1.evil.example:80", 403],
    ["", 403],
  ])("answers for the host %j with %d", async (host, status) => {
    expect((await server.request("/health", { headers: { ...authorised, host } })).status).toBe(
      status,
    );
  });

  it.each([
    ["https://page.example", 200],
    ["https://page.example.evil", 403],
    ["http://localhost", 403],
    ["null", 403],
  ])("answers a page of %s with %d", async (origin, status) => {
    const response = await server.request("/health", { headers: { ...authorised, origin } });
    expect(response.status).toBe(status);
    // CORS stays off: not even an allowed page is told more than the browser needs not.
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("a JSON body", () => {
  it("is read, validated and handed over with the key's owner", async () => {
    const { status, body, headers } = await post('{"name": "ä", "items": [{"text": "a", "x": 1}]}');
    expect(status).toBe(200);
    expect(body).toEqual({ name: "ä", items: [{ text: "a", x: 1 }], key: "owner" });
    expect(headers.get("x-request-id")).toMatch(/^req_[0-9a-f]{32}$/);
  });

  it.each([
    ["text/plain"],
    ["application/x-www-form-urlencoded"],
    ["application/jsonp"],
    ["multipart/form-data; boundary=application/json"],
  ])("is refused as %s", async (type) => {
    const { status, error } = await send("/v1/echo", {
      method: "POST",
      body: '{"name": "a"}',
      headers: { "content-type": type },
    });
    expect(status).toBe(415);
    expect(error).toMatchObject({ code: "unsupported_media_type" });
  });

  it.each([
    ["an empty body", "", "empty"],
    ["half an object", '{"name": "a secret prompt', "not valid JSON"],
    ["NaN", '{"name": "a", "reward": NaN}', "not valid JSON"],
    ["bytes that are no UTF-8", new Uint8Array([0x22, 0xc3, 0x28, 0x22]), "UTF-8"],
    ["a million open brackets", "[".repeat(1_000_000), "levels deep"],
    ["deep objects", '{"a":'.repeat(300) + "1" + "}".repeat(300), "levels deep"],
  ])("with %s is invalid_json", async (_what, body, message) => {
    const { status, error } = await post(body);
    expect(status).toBe(400);
    expect(error).toMatchObject({ code: "invalid_json" });
    expect((error as { message: string }).message).toContain(message);
    expect((error as { message: string }).message).not.toContain("secret");
  });

  it("may have brackets and quotes in its strings", async () => {
    const name = `${"[{".repeat(1000)}\\"\\\\`;
    expect((await post(JSON.stringify({ name }))).body).toMatchObject({ name });
  });

  it.each([
    ["an unknown key", '{"name":"a","colour":1}', "unsupported_parameter", "colour"],
    ["an unknown value", '{"name":"a","mode":"test"}', "unsupported_parameter", "mode"],
    ["a wrong type", '{"name":1}', "invalid_request", "name"],
    [
      "a fault inside",
      '{"name":"a","items":[{"text":"a"},{"text":2}]}',
      "invalid_request",
      "items[1].text",
    ],
    ["a wrong union", '{"name":"a","stop":1}', "invalid_request", "stop"],
    ["a wrong member of a union", '{"name":"a","stop":["x",1]}', "invalid_request", "stop[1]"],
    ["an infinite reward", '{"name":"a","reward":1e999}', "invalid_reward", "reward"],
    ["another kind of value", "[]", "invalid_request", null],
  ])("with %s names the field", async (_what, body, code, param) => {
    const { status, error } = await post(body);
    expect(status).toBe(400);
    expect(error).toMatchObject({ code, param, type: "invalid_request_error" });
  });

  it.each([
    ['{"name":1}', "name: it must be a text, not a number."],
    ["{}", "name: it is missing: it must be a text."],
    ["[]", "The body must be an object, not a list."],
    ['{"name":"a","reward":"1"}', "reward: a reward is a finite number or null."],
  ])("says in plain words what is wrong with %s", async (body, message) => {
    expect((await post(body)).error).toMatchObject({ message });
  });

  it("does not reach prototypes", async () => {
    const { body } = await post('{"name":"a","items":[{"text":"t","__proto__":{"polluted":1}}]}');
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
    expect((body["items"] as { polluted?: unknown }[])[0]?.polluted).toBeUndefined();
  });

  it("has a limit, whether its length is declared or not", async () => {
    const body = JSON.stringify({ name: "a".repeat(200) });
    expect((await post(body)).status).toBe(200);
    const chunked = new ReadableStream({
      start(controller) {
        for (const part of body.match(/.{1,40}/g) ?? []) controller.enqueue(Buffer.from(part));
        controller.close();
      },
    });
    for (const tooMuch of [chunked, body]) {
      const { status, error } = await post(tooMuch, "/v1/small");
      expect(status).toBe(413);
      expect(error).toMatchObject({ code: "body_too_large" });
    }
    const declared = await send("/v1/small", {
      method: "POST",
      body,
      headers: { "content-type": "application/json", "content-length": "999999999" },
    });
    expect(declared.status).toBe(413);
  });
});

describe("errors", () => {
  it("carry code, param and whether to send again", async () => {
    const { status, error, headers } = await send("/v1/throws/conflict");
    expect(status).toBe(409);
    expect(error).toEqual({
      message: "Another step.",
      type: "conflict_error",
      code: "step_mismatch",
      param: "expectedStep",
    });
    expect(headers.get("x-should-retry")).toBe("false");
    expect(headers.get("retry-after")).toBeNull();
  });

  it("say when to come back", async () => {
    const { status, headers } = await send("/v1/throws/unavailable");
    expect(status).toBe(503);
    expect(headers.get("x-should-retry")).toBe("true");
    expect(headers.get("retry-after-ms")).toBe("1500");
    expect(headers.get("retry-after")).toBe("2");
  });

  it("of the inside stay inside, and are logged under the request's id", async () => {
    const log: string[] = [];
    const response = await app(log).request("/v1/throws/bug", { headers: authorised });
    const text = await response.text();
    expect(response.status).toBe(500);
    expect(text).not.toContain("secret");
    const id = response.headers.get("x-request-id") ?? "none";
    expect(text).toContain(id);
    expect(log.join("")).toContain("a secret of the inside");
    expect(log.join("")).toContain(id);
  });

  it("tell an unknown path from an unknown method", async () => {
    const missing = await send("/v1/nothing");
    expect(missing.status).toBe(404);
    expect(missing.error).toMatchObject({ code: "not_found" });
    const hintOf = async (path: string): Promise<string> =>
      ((await send(path)).error as { message: string }).message;
    for (const path of ["/v1/nothing", "/v1/embeddings", "/v1/rollouts/ro_1/v1/images"]) {
      expect(await hintOf(path)).toMatch(/GET \/openapi.json lists all routes/);
      expect(await hintOf(path)).not.toContain("ends in /v1");
    }
    expect(await hintOf("/chat/completions")).toContain("at /v1/chat/completions: the base URL");
    expect(await hintOf("/v1/v1/chat/completions")).toContain("has /v1 twice");
    const method = await send("/v1/things/7", { method: "DELETE" });
    expect(method.status).toBe(405);
    expect(method.headers.get("allow")).toBe("GET, PUT");
    expect((await send("/v1/throws/http")).error).toMatchObject({ code: "not_found" });
    expect(await hintOf("/v1/responses/resp_1")).toContain("as input of POST /v1/responses");
  });
});
