import type { LookupFunction } from "node:net";
import { HoneError } from "@hone/core";
import { createParser } from "eventsource-parser";
import { Agent, request as send } from "undici";
import type { Dispatcher } from "undici";
import { z } from "zod";
import type { Engine, EngineChunk, EngineRequest, HeldFormat } from "../ports/engine.ts";
import {
  completionSchema,
  errorBodySchema,
  likeliest,
  modelListSchema,
  promptLogprobsOf,
  type CompletionChoice,
} from "./completion-wire.ts";
import {
  adapterError,
  brokenStream,
  completionError,
  connectionError,
  emptyAnswer,
  isAbort,
  noCallGrammar,
} from "./engine-errors.ts";

export interface HttpEngineOptions {
  kind: "embedded" | "vllm";
  /** Asked before each request, because a restarted engine has another port. Throws while there is no engine. */
  baseURL: () => string;
  key: () => string | null;
  /** Limit of requests that must not take long: lists and adapters. Generation has no limit of its own. */
  controlTimeoutMs?: number | undefined;
  /** Which addresses a name may stand for. @default the system's */
  lookup?: LookupFunction | undefined;
}

export interface HttpEngine extends Engine {
  /** Of vLLM: `0.32.0`. Null where the engine does not tell. */
  version(): Promise<string | null>;
  metrics(): Promise<string>;
  close(): Promise<void>;
}

/** They are read every second, and are only a hint. */
const metricsTimeoutMs = 900;

/** The driver of the engine contract (docs/worker-contract.md), the same for every engine. */
export function createHttpEngine(options: HttpEngineOptions): HttpEngine {
  const controlTimeoutMs = options.controlTimeoutMs ?? 60_000;
  // undici gives up on 300 s of silence by default; a long queue is silent for longer. Idle sockets close
  // before uvicorn's 5 s, so that no request is written to a socket that the engine is closing.
  const agent = new Agent({
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 4000,
    keepAliveMaxTimeout: 4000,
    connect: { timeout: 5000, ...(options.lookup && { lookup: options.lookup }) },
  });
  let known: { origin: string; base: string; maxModelLen: number } | undefined;

  async function call(
    method: "GET" | "POST",
    path: string,
    body: unknown,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const key = options.key();
    const headers: Record<string, string> = {};
    if (key !== null) headers["authorization"] = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const url = options.baseURL() + path;
    try {
      return await send(url, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal,
        dispatcher: agent,
      });
    } catch (error) {
      throw connectionError(error);
    }
  }

  async function control(
    method: "GET" | "POST",
    path: string,
    body?: unknown,
    timeoutMs = controlTimeoutMs,
  ) {
    const signal = AbortSignal.timeout(timeoutMs);
    try {
      const response = await call(method, path, body, signal);
      return { status: response.statusCode, text: await response.body.text() };
    } catch (error) {
      if (HoneError.isInstance(error)) throw error;
      throw new HoneError(`The engine did not answer ${path} in ${timeoutMs} ms.`, {
        code: "engine_unavailable",
        cause: error,
        retryAfterMs: 1000,
      });
    }
  }

  async function models() {
    const { status, text } = await control("GET", "/v1/models");
    if (status !== 200) {
      throw new HoneError(`The engine answered GET /v1/models with ${status}.`, {
        code: "engine_error",
      });
    }
    try {
      return modelListSchema.parse(JSON.parse(text)).data;
    } catch (cause) {
      throw new HoneError("The engine's list of models is not one of the engine contract.", {
        code: "engine_error",
        cause,
      });
    }
  }

  async function* generate(request: EngineRequest): AsyncGenerator<EngineChunk> {
    request.signal.throwIfAborted();
    if (options.kind === "vllm" && request.format?.type === "grammar") throw noCallGrammar();
    // vLLM refuses n > 1 at temperature 0, where all choices are the same one.
    const sampled = request.temperature === 0 ? 1 : request.n;
    const body = requestBody({ ...request, n: sampled });
    const response = await call("POST", "/v1/completions", body, request.signal);
    if (response.statusCode !== 200) {
      const text = await bodyText(response, request.signal);
      throw completionError(response.statusCode, text, request);
    }
    const unfinished = new Set(Array.from({ length: request.n }, (_, index) => index));
    const silent = new Set(unfinished);
    const read = request.stream
      ? readStream(response.body, request)
      : readWhole(response.body, request);
    try {
      for await (const choice of read) {
        const chunk = toChunk(choice, unfinished, request);
        if (chunk.tokenIds.length > 0) silent.delete(chunk.index);
        else if (chunk.finishReason !== null && silent.has(chunk.index)) throw emptyAnswer();
        const indices = sampled === request.n ? [chunk.index] : unfinished;
        for (const index of [...indices]) {
          if (chunk.finishReason !== null) unfinished.delete(index);
          yield { ...chunk, index };
        }
      }
    } catch (error) {
      if (HoneError.isInstance(error)) throw error;
      if (isAbort(error) || request.signal.aborted) throw error;
      throw brokenStream(error);
    } finally {
      // Ends the generation when the reader stopped early; a body read to its end keeps its socket.
      if (!response.body.readableEnded) response.body.on("error", () => {}).destroy();
    }
    if (unfinished.size > 0) throw brokenStream();
  }

  return {
    kind: options.kind,
    generate,

    async info() {
      const origin = options.baseURL();
      if (known?.origin !== origin) {
        const base = (await models()).find((model) => (model.parent ?? null) === null);
        if (!base?.max_model_len) {
          throw new HoneError("The engine lists no base model with its context length.", {
            code: "engine_error",
          });
        }
        known = { origin, base: base.id, maxModelLen: base.max_model_len };
      }
      return { base: known.base, maxModelLen: known.maxModelLen };
    },

    async load({ policy, path }) {
      const body = { lora_name: policy, lora_path: path };
      const { status, text } = await control("POST", "/v1/load_lora_adapter", body);
      if (status !== 200) throw adapterError("load", status, text, policy);
    },

    async unload(policy) {
      const { status, text } = await control("POST", "/v1/unload_lora_adapter", {
        lora_name: policy,
      });
      if (status !== 200) throw adapterError("unload", status, text, policy);
    },

    async served() {
      const adapters = (await models()).filter((model) => (model.parent ?? null) !== null);
      return new Map(adapters.map(({ id, root }) => [id, root ?? ""]));
    },

    async metrics() {
      const { status, text } = await control("GET", "/metrics", undefined, metricsTimeoutMs);
      if (status === 200) return text;
      throw new HoneError(`The engine answered GET /metrics with ${status}.`, {
        code: "engine_error",
      });
    },

    async version() {
      const { status, text } = await control("GET", "/version", undefined, metricsTimeoutMs);
      if (status !== 200) return null;
      return z.object({ version: z.string() }).safeParse(JSON.parse(text)).data?.version ?? null;
    },

    close: () => agent.destroy(),
  };
}

/**
 * Neutral values for what a model's generation_config would otherwise change (Qwen3's says top_k 20). vLLM
 * applies it to everything that a request leaves out.
 */
const neutral = {
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
};

function requestBody(request: EngineRequest) {
  return {
    model: request.model,
    prompt: request.prompt,
    n: request.n,
    max_tokens: request.maxTokens,
    temperature: request.temperature,
    top_p: request.topP,
    ...neutral,
    ...(request.seed !== null && { seed: request.seed }),
    ...(request.stop.length > 0 && { stop: request.stop }),
    stop_token_ids: request.stopTokenIds,
    logprobs: request.topLogprobs ?? 0,
    ...(request.topLogprobs && { return_tokens_as_token_ids: true }),
    ...(request.promptLogprobs && { prompt_logprobs: 0 }),
    return_token_ids: true,
    ...(request.format && heldBody(request.format)),
    stream: request.stream,
  };
}

function heldBody(format: HeldFormat) {
  if (format.type === "grammar") return { structured_outputs: { grammar: format.source } };
  if (format.type === "json_object") return { response_format: format };
  // The wire format asks for a name; engines do not use it.
  const wanted = { name: "answer", schema: format.schema };
  return { response_format: { type: format.type, json_schema: wanted } };
}

async function* readWhole(
  body: Dispatcher.ResponseData["body"],
  request: EngineRequest,
): AsyncGenerator<CompletionChoice> {
  yield* parseChoices(await body.text(), request);
}

/** The body of an error, which may break off as any answer may. */
async function bodyText({ body }: Dispatcher.ResponseData, signal: AbortSignal): Promise<string> {
  try {
    return await body.text();
  } catch (error) {
    throw isAbort(error) || signal.aborted ? error : connectionError(error);
  }
}

async function* readStream(
  body: AsyncIterable<Uint8Array>,
  request: EngineRequest,
): AsyncGenerator<CompletionChoice> {
  const decoder = new TextDecoder();
  let arrived: string[] = [];
  const parser = createParser({ onEvent: (event) => void arrived.push(event.data) });
  let done = false;
  for await (const bytes of body) {
    parser.feed(decoder.decode(bytes, { stream: true }));
    const events = arrived;
    arrived = [];
    for (const data of events) {
      if (data === "[DONE]") done = true;
      else yield* parseChoices(data, request);
    }
  }
  // An engine that died may close its socket in good order: only [DONE] is an end.
  if (!done) throw brokenStream();
}

function parseChoices(text: string, request: EngineRequest): CompletionChoice[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw brokenStream(cause);
  }
  if (typeof value === "object" && value !== null && "error" in value) {
    const { code, message } = errorBodySchema.safeParse(value).data?.error ?? {};
    // vLLM begins a stream before it looks at a schema; its code is the status that the answer would have had.
    // The embedded engine may find in the middle that a grammar cannot go on: asking again is no help.
    if (code === 400 || code === "unsupported_grammar") throw completionError(400, text, request);
    throw brokenStream(message ?? value.error);
  }
  const parsed = completionSchema.safeParse(value);
  if (parsed.success) return parsed.data.choices;
  throw new HoneError("The engine's answer is not one of the engine contract.", {
    code: "engine_error",
    cause: parsed.error,
  });
}

function toChunk(
  choice: CompletionChoice,
  unfinished: ReadonlySet<number>,
  { topLogprobs: top = 0, promptLogprobs, prompt }: EngineRequest,
): EngineChunk {
  const tokenIds = choice.token_ids ?? [];
  const logprobs = choice.logprobs?.token_logprobs ?? [];
  if (!unfinished.has(choice.index)) {
    throw new HoneError(`The engine sent choice ${choice.index} after its end, or unasked.`, {
      code: "engine_error",
    });
  }
  if (tokenIds.length !== logprobs.length || logprobs.includes(null)) {
    throw new HoneError(
      `The engine sent ${logprobs.length} logprobs for ${tokenIds.length} token ids. ` +
        "It must support return_token_ids and logprobs.",
      { code: "engine_error" },
    );
  }
  const finishReason = choice.finish_reason ?? null;
  if (finishReason !== null && finishReason !== "stop" && finishReason !== "length") {
    throw brokenStream(`finish_reason ${finishReason}`);
  }
  return {
    index: choice.index,
    text: choice.text,
    tokenIds,
    logprobs: logprobs as number[],
    ...(top > 0 && { topLogprobs: likeliest(choice, tokenIds.length, top) }),
    ...(promptLogprobs && { promptLogprobs: promptLogprobsOf(choice, prompt) }),
    finishReason,
  };
}
