import { Hono } from "hono";
import type { Logger } from "pino";
import { guard, type GuardOptions } from "./http/auth.ts";
import type { AppEnv } from "./http/env.ts";
import { installErrors } from "./http/errors.ts";

export interface AppParts {
  guard: GuardOptions;
  /** Sub-apps, in order. */
  routes: readonly Hono<AppEnv>[];
  /** What `GET /health` answers. */
  health: () => Promise<unknown>;
  log: Logger;
}

/** Every route of the server behind one guard. */
export function createApp(parts: AppParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  installErrors(app, parts.log);
  app.use(guard(parts.guard));
  app.get("/health", async (c) => c.json((await parts.health()) as object));
  for (const routes of parts.routes) app.route("/", routes);
  return app;
}
