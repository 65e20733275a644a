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
