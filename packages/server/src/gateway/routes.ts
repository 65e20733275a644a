import {
  chatRequestSchema,
  completionRequestSchema,
  countTokensRequestSchema,
  HoneError,
  messagesRequestSchema,
  responsesRequestSchema,
  type ModelEntry,
  type TokenCount,
} from "@hone/core";
import { Hono, type Context } from "hono";
import type { z } from "zod";
import type { AppEnv } from "../http/env.ts";
import { speaksAnthropic } from "../http/anthropic-error.ts";
import { readJson } from "../http/json.ts";
import type { PolicyLease, PolicyRouter } from "../ports/rollouts.ts";
import type { Writer } from "./answer-events.ts";
import type { Ask, RecallingAsk } from "./ask.ts";
import {
  clientGone,
  countPrompt,
  prepareAsk,
  type PreparedAsk,
  type GatewayParts,
} from "./prepare.ts";
import { createGatewayCounters, type GatewayCounters } from "./counters.ts";
import { readChat } from "./dialects/chat/read.ts";
import { writeChat } from "./dialects/chat/write.ts";
import { readCompletion } from "./dialects/completions/read.ts";
import { writeCompletion } from "./dialects/completions/write.ts";
import { listModels, modelOf } from "./dialects/messages/models.ts";
import { readMessages, readPrompt } from "./dialects/messages/read.ts";
import { writeMessages } from "./dialects/messages/write.ts";
import {
  inOwnWords,
  messagesFields,
  responsesFields,
  type OwnFields,
} from "./dialects/own-fields.ts";
import { readResponses } from "./dialects/responses/read.ts";
import { writeResponses } from "./dialects/responses/write.ts";
import { createRecorder } from "./recorder.ts";
import { createSink, type ResponseSink } from "./response-sink.ts";
import { createRetries, isRetry } from "./retries.ts";
import { keyOf } from "./same-ask.ts";
import { respondStreamed } from "./streamed.ts";
import { respondWhole } from "./whole.ts";

export interface GatewayDeps extends Pick<
  GatewayParts,
  "engine" | "renderer" | "tokens" | "ledger" | "log"
> {
  router: PolicyRouter;
  /** Counted up with each request; `/metrics` shows them. */
  counters?: GatewayCounters | undefined;
}

/** Where agents ask: `/v1/…`, and the same under every rollout's own base URL. */
export function gatewayRoutes(deps: GatewayDeps): Hono<AppEnv> {
  const { router, counters = createGatewayCounters(), ...shared } = deps;
  const recorder = createRecorder(shared.ledger, counters);
  const parts: GatewayParts = { ...shared, recorder, retries: createRetries(), counters };
  const app = new Hono<AppEnv>();
  const prefixes = ["/v1", "/v1/rollouts/:rollout/v1"];

  /** A dialect is how a request is read, and how its answer is written. */
  function dialect<S extends z.ZodType>(
    path: string,
    schema: S,
    read: (request: z.output<S>) => Ask | RecallingAsk,
    write: (request: z.output<S>, prepared: PreparedAsk, requestId: string) => Writer,
    fields: OwnFields = [],
  ): void {
    for (const prefix of prefixes) {
      app.post(prefix + path, async (c) => {
        // Before the first wait: a client that leaves while the prompt is rendered must be noticed too.
        const sink = createSink(c);
        const request = await readJson(c, schema);
        const writer = (prepared: PreparedAsk) => write(request, prepared, c.get("requestId"));
        return answer(c, sink, { asked: read(request), fields }, writer);
      });
    }
  }

  async function answer(
    c: Context<AppEnv>,
    sink: ResponseSink,
    { asked, fields }: { asked: Ask | RecallingAsk; fields: OwnFields },
    write: (prepared: PreparedAsk) => Writer,
  ): Promise<Response> {
    const rolloutId = c.req.param("rollout") ?? null;
    const retry = isRetry(c.req.header("x-stainless-retry-count"));
    const key = keyOf(asked);
    counters.requests++;

    async function work(): Promise<void> {
      let done = (): void => undefined;
      try {
        const lease = await leaseFor(c, asked.model);
        const order = lease.rolloutId === null ? null : parts.recorder.open(lease.rolloutId);
        done = () => {
          order?.close();
          lease.release();
        };
        // Models may have template arguments of their own, which decide how prompts are made and answers are read.
        const own = { ...parts, renderer: parts.renderer.withTemplate(lease.chatTemplateKwargs) };
        const ask = await recalled(asked, lease);
        const prepared = await prepareAsk(own, { lease, sink, retry, key }, ask);
        const respond = ask.stream ? respondStreamed : respondWhole;
        await respond(own, prepared, sink, write(prepared));
      } catch (error) {
        if (rolloutId !== null) parts.retries.failed(rolloutId, key);
        if (!sink.signal.aborted) throw inOwnWords(error, fields);
        counters.abandoned++;
        throw clientGone(error);
      } finally {
        done();
      }
    }
    return sink.respond(work());
  }

  async function recalled(asked: Ask | RecallingAsk, { rolloutId }: PolicyLease): Promise<Ask> {
    if (!("recall" in asked)) return asked;
    return asked.recall(rolloutId === null ? null : await parts.ledger.list(rolloutId));
  }

  function leaseFor(c: Context<AppEnv>, model: string, pins = true): Promise<PolicyLease> {
    const key = c.get("keyId");
    const rolloutId = c.req.param("rollout");
    return rolloutId === undefined
      ? router.leaseForModel(key, model)
      : router.leaseForRollout(key, rolloutId, model, pins);
  }

  /** What the prompt of these messages would have, where they were asked for now. */
  async function count(c: Context<AppEnv>): Promise<TokenCount> {
    const ask = readPrompt(await readJson(c, countTokensRequestSchema));
    // The rollout's policy is that of its first completion, which this is not.
    const lease = await leaseFor(c, ask.model, false);
    try {
      const renderer = parts.renderer.withTemplate(lease.chatTemplateKwargs);
      return { input_tokens: await countPrompt({ ...parts, renderer }, lease, ask) };
    } finally {
      lease.release();
    }
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

  dialect("/chat/completions", chatRequestSchema, readChat, writeChat);
  dialect("/completions", completionRequestSchema, readCompletion, writeCompletion);
  dialect("/messages", messagesRequestSchema, readMessages, writeMessages, messagesFields);
  dialect("/responses", responsesRequestSchema, readResponses, writeResponses, responsesFields);
  for (const prefix of prefixes) {
    app.post(`${prefix}/messages/count_tokens`, async (c) => c.json(await count(c)));
    app.get(`${prefix}/models`, async (c) => {
      const data = await list();
      return c.json(
        speaksAnthropic(c) ? listModels(data, c.req.query()) : { object: "list", data },
      );
    });
    app.get(`${prefix}/models/:id`, async (c) => {
      const model = await one(c.req.param("id") ?? "");
      return c.json(speaksAnthropic(c) ? modelOf(model) : model);
    });
  }
  return app;
}
