import { type GcReport, gcRequestSchema } from "@hone/core";
import { Hono } from "hono";
import type { z } from "zod";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";

/** A route for operators. Whoever has a key of this server counts as one. */
export function gcRoutes(
  collect: (request: z.output<typeof gcRequestSchema>) => Promise<GcReport>,
): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/gc", async (c) => c.json(await collect(await readJson(c, gcRequestSchema))));
  return app;
}
