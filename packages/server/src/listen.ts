import type { Server } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import { HoneError } from "@hone/core";
import type { Hono } from "hono";
import type { AppEnv } from "./http/env.ts";

export interface Listener {
  port: number;
  /** Stops accepting; what is under way has `graceMs` to end. */
  close(graceMs: number): Promise<void>;
}

/** Binds the public port. A port that is taken is one clear error. */
export async function listen(app: Hono<AppEnv>, host: string, port: number): Promise<Listener> {
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  // Long generations are silent while they queue: the client decides how long it waits.
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const message =
        cause.code === "EADDRINUSE"
          ? `Port ${port} on ${host} is taken by another program. Choose another with --port, or 0 for any.`
          : `Cannot listen on ${host}:${port}: ${cause.message}.`;
      reject(new HoneError(message, { code: "invalid_config", cause }));
    });
    server.listen(port, host, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : port,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeIdleConnections();
      const timer = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
