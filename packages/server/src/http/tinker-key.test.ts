import { Hono } from "hono";
import { pino } from "pino";
import { expect, it } from "vitest";
import { z } from "zod";
import { createApp } from "../app.ts";
import type { AppEnv } from "./env.ts";
import { readJson, readProtobuf } from "./json.ts";

const key = "hone_the-key-of-this-test";
const schema = z.strictObject({});

function appWith(ownKey: string): Hono<AppEnv> {
  return createApp({
    keys: [{ id: "owner", key: ownKey }],
    log: pino({ level: "silent" }),
    admit: () => undefined,
    health: () => ({ status: "ok", base: "base", components: {} }),
    metrics: async () => "",
    routes: [
      new Hono<AppEnv>()
        .post("/v1/json", async (c) => c.json(await readJson(c, schema)))
        .post("/tinker/json", async (c) => c.json(await readJson(c, schema)))
        .post("/tinker/bytes", async (c) => c.json([...(await readProtobuf(c))])),
    ],
  });
}

async function send(
  path: string,
  headers: Record<string, string>,
  {
    body = Uint8Array.of(8, 1),
    app = appWith(key),
  }: { body?: Uint8Array | string; app?: Hono<AppEnv> } = {},
): Promise<{ status: number; text: string }> {
  const length = String(body.length);
  const response = await app.request(path, {
    method: "POST",
    body,
    headers: { "content-length": length, ...headers },
  });
  return { status: response.status, text: await response.text() };
}

const protobuf = { "content-type": "application/x-protobuf" };
const json = { "content-type": "application/json" };
const bearer = { authorization: `Bearer ${key}` };
const own = { "x-api-key": `tml-${key}` };

it("Tinker's client has the key in a header of its own, under /tinker alone", async () => {
  expect(await send("/tinker/bytes", { ...protobuf, ...own })).toEqual({
    status: 200,
    text: "[8,1]",
  });
  for (const given of ["tml-wrong", "tml-", `tml-${key}x`]) {
    const refused = await send("/tinker/bytes", { ...protobuf, "x-api-key": given });
    expect(refused.status).toBe(401);
    expect(refused.text).toContain('api_key=\\"tml-<key>\\"');
  }
  expect((await send("/tinker/bytes", { ...protobuf, ...bearer })).status).toBe(401);
  expect((await send("/v1/json", { ...json, ...own }, { body: "{}" })).status).toBe(401);
  expect((await send("/v1/json", { ...json, ...bearer }, { body: "{}" })).status).toBe(200);

  // A key that looks like Tinker's is given as it is.
  const app = appWith("tml-the-key-of-this-test");
  const asItIs = { ...protobuf, "x-api-key": "tml-the-key-of-this-test" };
  expect((await send("/tinker/bytes", asItIs, { app })).status).toBe(200);
});

it("takes protocol buffers with a key, not compressed, and of nobody else", async () => {
  expect((await send("/v1/json", { ...protobuf, ...bearer })).status).toBe(415);
  expect((await send("/tinker/json", { ...protobuf, ...own })).status).toBe(415);
  expect((await send("/tinker/json", { ...json, ...own }, { body: "{}" })).status).toBe(200);
  expect((await send("/tinker/bytes", { ...json, ...own }, { body: "{}" })).status).toBe(415);
  const form = { "content-type": "application/x-www-form-urlencoded" };
  expect((await send("/tinker/bytes", { ...form, ...own })).status).toBe(415);
  const zstd = await send("/tinker/bytes", { ...protobuf, ...own, "content-encoding": "zstd" });
  expect(zstd.status).toBe(415);
  expect(zstd.text).toContain("zstd");
});
