import type { ChatTemplateKwargs } from "@hone/core";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { serve, type ServerType } from "@hono/node-server";
import { Hono } from "hono";
import OpenAI from "openai";
import { pino } from "pino";
import type { AppEnv } from "../http/env.ts";
import { installErrors } from "../http/errors.ts";
import type { Engine } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";
import { createGatewayCounters, type GatewayCounters } from "../gateway/counters.ts";
import { gatewayRoutes } from "../gateway/routes.ts";
import { createTokenTable } from "../gateway/token-table.ts";
import {
  createMemoryLedger,
  createMemoryRouter,
  type MemoryLedger,
  type MemoryRouter,
} from "./memory-state.ts";

/** The gateway on a loopback port, over a renderer and an engine, with its state in memory. */
export interface ServedGateway {
  baseURL: string;
  app: Hono<AppEnv>;
  ledger: MemoryLedger;
  router: MemoryRouter;
  counters: GatewayCounters;
  /** A client of the rollout's own base URL; without a rollout, of the plain one. */
  client(rollout?: string): OpenAI;
  close(): Promise<void>;
}

export async function serveGateway(
  engine: Engine,
  renderer: Renderer,
  policy = "m@1",
  template: ChatTemplateKwargs | null = null,
): Promise<ServedGateway> {
  const ledger = createMemoryLedger();
  const router = createMemoryRouter(policy, template);
  const counters = createGatewayCounters();
  const log = pino({ level: process.env["HONE_TEST_LOG"] ?? "silent" });
  const app = new Hono<AppEnv>();
  app.use(async (c, next) => {
    c.set("keyId", "key");
    c.set("requestId", "r1");
    c.header("x-request-id", "r1");
    await next();
  });
  installErrors(app, log);
  app.route(
    "/",
    gatewayRoutes({
      engine,
      renderer,
      tokens: createTokenTable(renderer),
      ledger,
      router,
      log,
      counters,
    }),
  );
  const server: ServerType = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" });
  if (!server.listening) await once(server, "listening");
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    baseURL,
    app,
    ledger,
    router,
    counters,
    client: (rollout) =>
      new OpenAI({
        baseURL: `${baseURL}${rollout ? `/v1/rollouts/${rollout}` : ""}/v1`,
        apiKey: "k",
        maxRetries: 0,
      }),
    async close() {
      if ("closeAllConnections" in server) server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
