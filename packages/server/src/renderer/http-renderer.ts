import { type ChatTemplateKwargs, HoneError } from "@hone/core";
import { Agent, request as send } from "undici";
import { z } from "zod";
import { failureOf, parseAnswer } from "../http/child-answer.ts";
import type { Renderer, RendererInfo } from "../ports/renderer.ts";
import { canonicalJson } from "../store/canonical.ts";

export interface RendererClientOptions {
  /** Asked before each request, because a restarted renderer has another port. Throws while there is no renderer. */
  baseURL: () => string;
  key: () => string;
  timeoutMs?: number | undefined;
}

export interface RendererClient extends Renderer {
  close(): Promise<void>;
}

const idsSchema = z.object({ ids: z.array(z.int()) });
const bridgeSchema = z.object({ ids: z.array(z.int()).nullable(), reason: z.string().nullish() });
const parseSchema = z.object({
  content: z.string().nullable(),
  reasoning: z.string().nullable(),
  tool_calls: z.array(z.object({ name: z.string(), arguments: z.string() })),
});
const tokensSchema = z.object({
  tokens: z.array(z.object({ token: z.string(), bytes: z.array(z.int()) })),
});
const schemaSchema = z.object({
  supported: z.literal(true),
  schema: z.record(z.string(), z.unknown()),
});
const callsSchema = z.object({ grammar: z.string() });
const infoSchema = z.object({
  renderer: z.string(),
  tools: z.enum(["template", "convention", "none"]),
  plain_texts: z.boolean(),
  stop_token_ids: z.array(z.int()),
  bridges: z.boolean(),
  max_model_len: z.int(),
  vocab_size: z.int(),
  longest_token: z.int().min(1).nullable(),
  tool_markers: z.array(z.string()),
  reasoning_markers: z.array(z.string()),
  call_end: z.object({ text: z.string(), id: z.int().nullable() }).nullable(),
});

/** The client of the renderer process (docs/worker-contract.md). */
export function createRendererClient(options: RendererClientOptions): RendererClient {
  const timeoutMs = options.timeoutMs ?? 30_000;
  // The renderer works on one core: more sockets would only move its queue. Idle sockets close before uvicorn's.
  const agent = new Agent({
    connections: 16,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    keepAliveTimeout: 4000,
    keepAliveMaxTimeout: 4000,
    connect: { timeout: 5000 },
  });
  /** What one renderer process says of itself, by the arguments of the template. */
  const known = new Map<string, RendererInfo>();
  let knownOf = "";

  async function call<T>(schema: z.ZodType<T>, path: string, body?: unknown): Promise<T> {
    const url = options.baseURL() + path;
    let status: number;
    let text: string;
    try {
      const response = await send(url, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          authorization: `Bearer ${options.key()}`,
          ...(body !== undefined && { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        dispatcher: agent,
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (cause) {
      if (HoneError.isInstance(cause)) throw cause;
      throw new HoneError("The renderer does not answer. It may be restarting; send it again.", {
        code: "renderer_unavailable",
        cause,
        retryAfterMs: 1000,
      });
    }
    if (status !== 200) throw failure(status, text, path);
    const parsed = schema.safeParse(parseAnswer(text));
    if (parsed.success) return parsed.data;
    throw new HoneError(`The renderer's answer to ${path} is not one of its contract.`, {
      code: "internal_error",
      cause: parsed.error,
    });
  }

  const view = (kwargs: ChatTemplateKwargs | null): Renderer => ({
    withTemplate: view,

    async info() {
      const origin = options.baseURL();
      const key = canonicalJson(kwargs);
      if (knownOf !== origin || known.size >= mostKnown) known.clear();
      knownOf = origin;
      const found = known.get(key);
      if (found) return found;
      const info = infoOf(await call(infoSchema, "/info", kwargs ? template(kwargs) : undefined));
      // A renderer that was restarted meanwhile may have read other files of the base.
      if (knownOf === origin) known.set(key, info);
      return info;
    },

    async render(messages, tools) {
      return (
        await call(idsSchema, "/render", { messages, ...(tools && { tools }), ...template(kwargs) })
      ).ids;
    },

    async conversation(messages, tools) {
      const body = { messages, ...(tools && { tools }), generation_prompt: false };
      return (await call(idsSchema, "/render", { ...body, ...template(kwargs) })).ids;
    },

    async answer(messages, tools) {
      return (
        await call(idsSchema, "/answer", { messages, ...(tools && { tools }), ...template(kwargs) })
      ).ids;
    },

    async encode(text) {
      return (await call(idsSchema, "/encode", { text })).ids;
    },

    async bridge(promptIds, completionIds, newMessages, tools) {
      const answer = await call(bridgeSchema, "/bridge", {
        prompt_ids: promptIds,
        completion_ids: completionIds,
        messages: newMessages,
        ...(tools && { tools }),
        ...template(kwargs),
      });
      return answer.ids
        ? { ids: answer.ids }
        : { ids: null, reason: answer.reason ?? "no reason given" };
    },

    async parse(completionIds, tools, visible) {
      const parsed = await call(parseSchema, "/parse", {
        ids: completionIds,
        ...(tools && { tools }),
        ...(visible !== undefined && { visible }),
        ...template(kwargs),
      });
      return {
        content: parsed.content,
        reasoning: parsed.reasoning,
        toolCalls: parsed.tool_calls.map((made) => ({
          name: made.name,
          arguments: made.arguments,
        })),
      };
    },

    async tokens(ids) {
      return (await call(tokensSchema, "/tokens", { ids })).tokens;
    },

    async callGrammar(wanted) {
      return (await call(callsSchema, "/calls", { ...wanted, ...template(kwargs) })).grammar;
    },

    async checkSchema(schema) {
      return (await call(schemaSchema, "/schema", { schema })).schema;
    },
  });

  return { ...view(null), close: () => agent.destroy() };
}

/** How many renderings are remembered. Models have few; arguments that are made up for each request must not fill memory. */
const mostKnown = 64;

function template(kwargs: ChatTemplateKwargs | null): object {
  return kwargs ? { chat_template_kwargs: kwargs } : {};
}

function infoOf(info: z.infer<typeof infoSchema>): RendererInfo {
  return {
    name: info.renderer,
    tools: info.tools,
    plainTexts: info.plain_texts,
    stopTokenIds: info.stop_token_ids,
    bridges: info.bridges,
    maxModelLen: info.max_model_len,
    vocabSize: info.vocab_size,
    longestToken: info.longest_token,
    markers: [...info.tool_markers, ...info.reasoning_markers],
    callEnd: info.call_end,
  };
}

function failure(status: number, text: string, path: string): HoneError {
  const error = failureOf(text);
  if (error && error.code === "unsupported_schema") {
    return new HoneError(error.message, {
      code: "unsupported_parameter",
      param: error.param ?? "response_format",
    });
  }
  if (status === 400 || status === 422) {
    return new HoneError(error?.message ?? "The renderer refused the messages.", {
      code: "invalid_request",
      param: error?.param ?? "messages",
    });
  }
  if (status === 503) {
    return new HoneError("The renderer takes no requests now. Send it again in a second.", {
      code: "renderer_unavailable",
      retryAfterMs: 1000,
    });
  }
  return new HoneError(`The renderer failed on ${path} (${status}). Its log has the cause.`, {
    code: "internal_error",
    cause: error?.message,
  });
}
