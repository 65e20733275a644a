import { chatRequestSchema, completionRequestSchema, HoneError, type ModelEntry } from "@hone/core";
import { Hono, type Context } from "hono";
import type { Logger } from "pino";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import type { Sampler } from "../ports/engine.ts";
import type { Ledger } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyRouter } from "../ports/rollouts.ts";
import { clientGone, type Caller, type GatewayParts } from "./call.ts";
import { checkRequest, prepareChat, repeatedChat } from "./dialects/chat/read.ts";
import { createGatewayCounters, type GatewayCounters } from "./counters.ts";
import { createRecorder } from "./recorder.ts";
import { createSink, type ResponseSink } from "./response-sink.ts";
import { createRetries, isRetry } from "./retries.ts";
import { respondChatStreamed } from "./dialects/chat/write.ts";
import { checkTextRequest, prepareText, textKey } from "./dialects/completions/read.ts";
import { respondText } from "./dialects/completions/write.ts";
import type { TokenTable } from "./token-table.ts";
import { respondChat } from "./whole.ts";

export interface GatewayDeps {
  engine: Sampler;
  renderer: Renderer;
  tokens: TokenTable;
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
    tokens: deps.tokens,
    retries: createRetries(),
    counters,
    log: deps.log,
  };

  /** What every dialect does around its call. */
  async function answer(
    c: Context<AppEnv>,
    sink: ResponseSink,
    request: { model: string; key: () => string },
    respond: (caller: Caller, parts: GatewayParts) => Promise<void>,
  ): Promise<Response> {
    const rolloutId = c.req.param("rollout") ?? null;
    const retry = isRetry(c.req.header("x-stainless-retry-count"));
    counters.calls++;
    const key = c.get("keyId");

    async function work(): Promise<void> {
      let done = (): void => undefined;
      try {
        const lease =
          rolloutId === null
            ? await router.leaseForModel(key, request.model)
            : await router.leaseForRollout(key, rolloutId, request.model);
        const order = lease.rolloutId === null ? null : parts.recorder.open(lease.rolloutId);
        done = () => {
          order?.close();
          lease.release();
        };
        // The prompt, its bridges and how an answer is read are one model's own.
        const renderer = parts.renderer.withTemplate(lease.chatTemplateKwargs);
        await respond({ lease, sink, retry }, { ...parts, renderer });
      } catch (error) {
        if (rolloutId !== null) parts.retries.failed(rolloutId, request.key());
        if (!sink.signal.aborted) throw error;
        counters.abandoned++;
        throw clientGone(error);
      } finally {
        done();
      }
    }
    return sink.respond(work());
  }

  async function chat(c: Context<AppEnv>): Promise<Response> {
    // Before the first wait: a client that leaves while the prompt is rendered must be noticed too.
    const sink = createSink(c);
    const request = await readJson(c, chatRequestSchema);
    checkRequest(request);
    const repeated = repeatedChat(request);
    const asked = { model: request.model, key: () => repeated.key() };
    return answer(c, sink, asked, async (caller, own) => {
      const call = await prepareChat(own, caller, request);
      if (request.stream) await respondChatStreamed(own, call, sink);
      else await respondChat(own, call, sink);
    });
  }

  async function complete(c: Context<AppEnv>): Promise<Response> {
    const sink = createSink(c);
    const request = await readJson(c, completionRequestSchema);
    checkTextRequest(request);
    const key = () => textKey(request);
    return answer(c, sink, { model: request.model, key }, async (caller, own) => {
      await respondText(own, await prepareText(own, caller, request), sink);
    });
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
  for (const prefix of ["/v1", "/v1/rollouts/:rollout/v1"]) {
    app.post(`${prefix}/chat/completions`, chat);
    app.post(`${prefix}/completions`, complete);
    app.get(`${prefix}/models`, async (c) => c.json({ object: "list", data: await list() }));
    app.get(`${prefix}/models/:id`, async (c) => c.json(await one(c.req.param("id") ?? "")));
  }
  return app;
}
