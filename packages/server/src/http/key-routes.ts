import type { RotatedKey } from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "./env.ts";
import type { ServerKey } from "./key-file.ts";

/** For operators. What is under way with the old key goes on; the next request with it is refused. */
export function keyRoutes(key: ServerKey): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/keys/rotate", (c) =>
    c.json({ object: "hone.key", key: key.rotate(), file: key.file } satisfies RotatedKey),
  );
  return app;
}
