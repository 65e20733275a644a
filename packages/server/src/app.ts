import { HoneError, type Health } from "@hone/core";
import { Hono } from "hono";
import type { Logger } from "pino";
import { guard, type GuardOptions } from "./http/auth.ts";
import type { AppEnv } from "./http/env.ts";
import { installErrors } from "./http/errors.ts";
import { docsPath, openApiRoutes } from "./openapi/routes.ts";

export interface AppOptions extends GuardOptions {
  log: Logger;
  /** What is asked before every request: throws while the server starts or stops. */
  admit: () => void;
  health: () => Health;
  metrics: () => Promise<string>;
  routes: readonly Hono<AppEnv>[];
}

/** Every route of the public port, behind one guard. */
export function createApp(options: AppOptions): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  installErrors(app, options.log);
  app.use("*", guard({ ...options, open: [docsPath] }));

  app.get("/health", (c) => {
    const health = options.health();
    return c.json(health, health.status === "ok" ? 200 : 503);
  });
  app.get("/metrics", async (c) =>
    c.body(await options.metrics(), 200, { "content-type": "text/plain; version=0.0.4" }),
  );

  app.route("/", openApiRoutes());

  for (const path of ["/v1/*", "/tinker/*", "/engine/*"]) {
    app.use(path, async (_c, next) => {
      options.admit();
      await next();
    });
  }
  for (const routes of options.routes) app.route("/", routes);
  return app;
}

export function shuttingDown(): HoneError {
  return new HoneError("The server is stopping. Send the request again once it is back.", {
    code: "shutting_down",
    retryAfterMs: 2_000,
  });
}
