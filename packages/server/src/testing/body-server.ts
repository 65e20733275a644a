import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { chatRequestSchema, patchRolloutSchema, submitOperationSchema } from "@hone/core";
import { Hono } from "hono";
import { pino } from "pino";
import type { z } from "zod";
import type { AppEnv } from "../http/env.ts";
import { installErrors } from "../http/errors.ts";
import { readJson } from "../http/json.ts";

const schemas: Readonly<Record<string, z.ZodType>> = {
  chat: chatRequestSchema,
  operation: submitOperationSchema,
  rollout: patchRolloutSchema,
};

/** A JSON list of about `size` characters, of one item again and again. */
export const listOf = (item: string, size: number): string =>
  `[${`${item},`.repeat(size / (item.length + 1))}${item}]`;
export const chatBody = (messages: string): string => `{"model":"m","messages":${messages}}`;
export const trainBody = (groups: string): string =>
  `{"clientToken":"t","op":{"type":"train","groups":${groups}}}`;

/** Reads what is posted to `/chat`, `/operation` and `/rollout` as the server does, and does nothing with it. */
export async function startBodyServer(): Promise<{ origin: string; close(): void }> {
  const app = new Hono<AppEnv>();
  installErrors(app, pino({ level: "silent" }));
  for (const [name, schema] of Object.entries(schemas)) {
    app.post(`/${name}`, async (c) => {
      await readJson(c, schema);
      return c.json({});
    });
  }
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, close: () => void server.close() };
}
