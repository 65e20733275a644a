import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { HoneError } from "@hone/core";
import { afterEach, describe, expect, it } from "vitest";
import { createHttpEngine, type HttpEngine } from "./http-engine.ts";
import { adapterAt } from "../testing/adapters.ts";
import { sample } from "../testing/sampling.ts";

// Faults that no healthy engine shows: a server that breaks in the ways that engines were seen to break.
type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => unknown;

describe("driver of the engine contract", () => {
  const open: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const close of open.splice(0)) await close();
  });

  async function engineOf(handler: Handler, controlTimeoutMs = 60_000): Promise<HttpEngine> {
    const server = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => void (body += text));
      request.on("end", () => handler(request, response, body));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const engine = createHttpEngine({
      kind: "vllm",
      baseURL: () => `http://127.0.0.1:${port}`,
      key: () => "secret",
      controlTimeoutMs,
    });
    open.push(async () => {
      await engine.close();
      server.closeAllConnections();
      server.close();
    });
    return engine;
  }

  const choice = (rest: Record<string, unknown> = {}) => ({
    choices: [
      {
        index: 0,
        text: "a",
        token_ids: [1],
        logprobs: { token_logprobs: [-0.5] },
        finish_reason: null,
        ...rest,
      },
    ],
  });
  const events = (...data: unknown[]) =>
    data.map((value) => `data: ${value === "[DONE]" ? value : JSON.stringify(value)}\n\n`).join("");
  const codeOf = async (work: Promise<unknown>) => {
    const error = await work.catch((failure: unknown) => failure);
    return HoneError.isInstance(error) ? error.code : error;
  };

  it.each([true, false])("an answer without a token is none (stream: %s)", async (stream) => {
    const empty = choice({
      token_ids: [],
      logprobs: { token_logprobs: [] },
      finish_reason: "stop",
    });
    const engine = await engineOf((_request, response) => {
      response.end(stream ? events(empty, "[DONE]") : JSON.stringify(empty));
    });
    await expect(sample(engine, { prompt: [1], stream })).rejects.toMatchObject({
      ...{ code: "engine_error", message: expect.stringContaining("no token") },
    });
  });

  it("an answer may end with a chunk that holds no token", async () => {
    const last = choice({ token_ids: [], logprobs: { token_logprobs: [] }, finish_reason: "stop" });
    const engine = await engineOf((_request, response) => {
      response.end(events(choice(), last, "[DONE]"));
    });
    const [answer] = await sample(engine, { prompt: [1], stream: true });
    expect(answer).toMatchObject({ ids: [1], finish: "stop" });
  });

  it("a rank that vLLM was not started for is the adapter's fault, and says what to do", async () => {
    const said =
      "Call to add_lora method failed: Worker failed with error 'LoRA rank 32 is greater than max_lora_rank 16.', please check the stack trace above for the root cause";
    const engine = await engineOf((_request, response) => {
      response.writeHead(500, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ error: { message: said, type: "InternalServerError", code: 500 } }),
      );
    });
    await expect(engine.load(adapterAt("b@0"))).rejects.toMatchObject({
      code: "bad_adapter",
      message: expect.stringMatching(/its rank is 32.*for 16 at most.*--max-lora-rank 32/),
    });
  });

  it.each<[string, string]>([
    ["no [DONE]", events(choice({ finish_reason: "stop" }))],
    ["no finish", events(choice(), "[DONE]")],
    ["an error event", events(choice(), { error: { message: "boom", code: 500 } }, "[DONE]")],
    ["an aborted choice", events(choice({ finish_reason: "abort" }), "[DONE]")],
    ["a chunk after the end", events(choice({ finish_reason: "stop" }), choice(), "[DONE]")],
    [
      "a choice that nobody asked for",
      events(choice({ index: 1, finish_reason: "stop" }), "[DONE]"),
    ],
    ["no token ids", events(choice({ token_ids: null, finish_reason: "stop" }), "[DONE]")],
    ["half a JSON", 'data: {"choices": [\n\n'],
    ["something else", events({ hello: 1 }, "[DONE]")],
  ])("takes a stream with %s for broken", async (_, body) => {
    const engine = await engineOf((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).end(body);
    });
    expect(await codeOf(sample(engine, { prompt: [1], stream: true }))).toBe("engine_error");
  });

  it("refuses a grammar of calls where the engine is vLLM, before it is asked", async () => {
    let asked = 0;
    const engine = await engineOf((_request, response) => {
      asked++;
      response.writeHead(200).end(JSON.stringify(choice({ finish_reason: "stop" })));
    });
    const format = { type: "grammar" as const, source: 'start: "a"' };
    expect(await codeOf(sample(engine, { prompt: [1], format }))).toBe("unsupported_parameter");
    expect(asked).toBe(0);
  });

  it("takes a socket that breaks for a broken engine, and one that is closed for a missing one", async () => {
    const engine = await engineOf((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(events(choice()), () => response.destroy());
    });
    expect(await codeOf(sample(engine, { prompt: [1], stream: true }))).toBe("engine_error");
    const gone = createHttpEngine({
      kind: "vllm",
      baseURL: () => "http://127.0.0.1:1",
      key: () => null,
    });
    open.push(() => gone.close());
    expect(await codeOf(sample(gone, { prompt: [1] }))).toBe("engine_unavailable");
    expect(await codeOf(gone.served())).toBe("engine_unavailable");
  });

  it("takes an error whose body breaks off for a missing engine, which another may stand in for", async () => {
    const engine = await engineOf((_request, response) => {
      response.writeHead(500, { "content-length": "100" });
      response.write("Internal", () => response.destroy());
    });
    expect(await codeOf(sample(engine, { prompt: [1] }))).toBe("engine_unavailable");
  });

  it("reads events that are cut anywhere, in the middle of a character too", async () => {
    const bytes = Buffer.from(
      events(choice({ text: "é→" }), choice({ text: "", finish_reason: "length" }), "[DONE]"),
    );
    const engine = await engineOf(async (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (const byte of bytes) {
        response.write(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      response.end();
    });
    const [sampled] = await sample(engine, { prompt: [1], stream: true });
    expect(sampled).toMatchObject({ text: "é→", ids: [1, 1], finish: "length" });
  });

  it.each([
    [404, { error: { message: "no such model", code: 404 } }, "policy_not_found"],
    [
      400,
      { error: { message: "longer than the maximum model length of 512" } },
      "context_length_exceeded",
    ],
    [400, { error: { message: "x", code: "context_length_exceeded" } }, "context_length_exceeded"],
    [400, { error: { message: "top_p must be in (0, 1]" } }, "invalid_request"],
    [401, { error: "Unauthorized" }, "engine_error"],
    [500, "Internal Server Error", "engine_error"],
    [503, "", "engine_unavailable"],
  ])("maps status %i %j to %s", async (status, body, code) => {
    const engine = await engineOf((_request, response) => {
      response.writeHead(status).end(typeof body === "string" ? body : JSON.stringify(body));
    });
    expect(await codeOf(sample(engine, { prompt: [1] }))).toBe(code);
  });

  it.each([
    [false, 400],
    [true, 400],
    [true, "unsupported_grammar"],
  ])(
    "takes a refusal for the format's, where one was asked for, streaming %s, code %s",
    async (stream, code) => {
      const refusal = { error: { message: "Grammar error: Invalid type: strin", code } };
      let seen: unknown;
      const engine = await engineOf((_request, response, body) => {
        seen = JSON.parse(body) as unknown;
        if (stream) response.writeHead(200).end(events(refusal, "[DONE]"));
        else response.writeHead(400).end(JSON.stringify(refusal));
      });
      const schema = { type: "strin" };
      const format = { type: "json_schema" as const, schema };
      const failure = await sample(engine, { prompt: [1], stream, format }).catch(
        (error: unknown) => error,
      );
      expect(failure).toMatchObject({
        code: "unsupported_parameter",
        param: "response_format.json_schema.schema",
        message: expect.stringContaining("strin"),
      });
      expect(seen).toMatchObject({
        response_format: { type: "json_schema", json_schema: { name: "answer", schema } },
      });
    },
  );

  it("sends the key and exactly what the contract asks for", async () => {
    let seen: unknown;
    const engine = await engineOf((request, response, body) => {
      seen = { key: request.headers.authorization, body: JSON.parse(body) as unknown };
      response.end(JSON.stringify(choice({ finish_reason: "stop" })));
    });
    await sample(engine, { prompt: [1, 2], stop: ["x"], stopTokenIds: [7], seed: 3 });
    expect(seen).toEqual({
      key: "Bearer secret",
      body: {
        ...{ model: "base", prompt: [1, 2], n: 1, max_tokens: 12, temperature: 0, top_p: 1 },
        ...{ seed: 3, stop: ["x"], stop_token_ids: [7] },
        // Said, or vLLM takes them from the model's generation_config.
        ...{ top_k: 0, min_p: 0, repetition_penalty: 1 },
        ...{ presence_penalty: 0, frequency_penalty: 0 },
        ...{ logprobs: 0, return_token_ids: true, stream: false },
      },
    });
  });

  it.each([true, false])(
    "closes the connection when it is aborted, streaming %s",
    async (stream) => {
      let close = () => {};
      const closed = new Promise<void>((resolve) => (close = resolve));
      const stop = new AbortController();
      const engine = await engineOf((_request, response) => {
        response.on("close", () => close());
        if (stream) response.writeHead(200).write(events(choice()), () => stop.abort());
        else stop.abort();
      });
      const work = sample(engine, { prompt: [1], stream, signal: stop.signal });
      await expect(work).rejects.toMatchObject({ name: "AbortError" });
      await closed;
    },
  );

  it("gives up on a list that does not come", async () => {
    const engine = await engineOf(() => {}, 300);
    expect(await codeOf(engine.served())).toBe("engine_unavailable");
  });
});
