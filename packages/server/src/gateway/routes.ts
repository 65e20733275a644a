import { type ChatRequest, chatRequestSchema, HoneError, type ModelEntry } from "@hone/core";
import { Hono, type Context } from "hono";
import type { Logger } from "pino";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import type { Engine } from "../ports/engine.ts";
import type { Ledger } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyRouter } from "../ports/rollouts.ts";
import {
  checkRequest,
  clientGone,
  prepareCall,
  renderedTools,
  type GatewayParts,
} from "./chat-call.ts";
import { createGatewayCounters, type GatewayCounters } from "./counters.ts";
import { createRecorder } from "./recorder.ts";
import { createSink } from "./response-sink.ts";
import { createRetries, isRetry } from "./retries.ts";
import { respondStreamed } from "./streamed-response.ts";
import { createTokenTable } from "./token-table.ts";
import { respondWhole } from "./whole-response.ts";

export interface GatewayDeps {
  engine: Engine;
  renderer: Renderer;
  ledger: Ledger;
  router: PolicyRouter;
  log: Logger;
  /** Filled as calls come in; the caller shows them. */
  counters?: GatewayCounters | undefined;
}

/** The OpenAI dialect: `/v1/…`, and the same under every rollout's own base URL. */
export function gatewayRoutes(deps: GatewayDeps): Hono<AppEnv> {
  const { router } = deps;
  const counters = deps.counters ?? createGatewayCounters();
  const parts: GatewayParts = {
    engine: deps.engine,
    renderer: deps.renderer,
    ledger: deps.ledger,
    recorder: createRecorder(deps.ledger, counters),
    tokens: createTokenTable(deps.renderer),
    retries: createRetries(),
    counters,
    log: deps.log,
  };

  async function chat(c: Context<AppEnv>, rolloutId: string | null): Promise<Response> {
    // Before the first wait: a client that leaves while the prompt is rendered must be noticed too.
    const sink = createSink(c);
    const request = await readJson(c, chatRequestSchema);
    checkRequest(request);
    const retry = isRetry(c.req.header("x-stainless-retry-count"));
    counters.calls++;
    const key = c.get("keyId");

    async function work(): Promise<void> {
      const lease =
        rolloutId === null
          ? await router.leaseForModel(key, request.model)
          : await router.leaseForRollout(key, rolloutId, request.model);
      const order = lease.rolloutId === null ? null : parts.recorder.open(lease.rolloutId);
      try {
        const call = await prepareCall(parts, request, lease, sink, retry);
        if (request.stream) await respondStreamed(parts, call, sink);
        else await respondWhole(parts, call, sink);
      } catch (error) {
        noteFailure(lease.rolloutId, request);
        if (!sink.signal.aborted) throw error;
        counters.abandoned++;
        throw clientGone(error);
      } finally {
        order?.close();
        lease.release();
      }
    }
    return sink.respond(work());
  }

  function noteFailure(rolloutId: string | null, request: ChatRequest): void {
    if (rolloutId === null) return;
    const { messages } = request;
    parts.retries.failed(rolloutId, { messages, tools: renderedTools(request) });
  }

  async function list(): Promise<ModelEntry[]> {
    return (await router.listModels()).map(({ id, createdAt }) => ({
      id,
      object: "model",
      created: Math.floor(createdAt / 1000),
      owned_by: "hone",
    }));
  }

  async function one(id: string): Promise<ModelEntry> {
    const found = (await list()).find((model) => model.id === id);
    if (found) return found;
    throw new HoneError(
      `There is no model "${id.slice(0, 120)}". GET /v1/models lists those there are.`,
      { code: "model_not_found", param: "model" },
    );
  }

  const app = new Hono<AppEnv>();
  app.post("/v1/chat/completions", (c) => chat(c, null));
  app.post("/v1/rollouts/:rollout/v1/chat/completions", (c) => chat(c, c.req.param("rollout")));
  for (const prefix of ["/v1", "/v1/rollouts/:rollout/v1"]) {
    app.get(`${prefix}/models`, async (c) => c.json({ object: "list", data: await list() }));
    app.get(`${prefix}/models/:id`, async (c) => c.json(await one(c.req.param("id") ?? "")));
  }
  return app;
}
