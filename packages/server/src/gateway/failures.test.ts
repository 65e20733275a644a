import { connect } from "node:net";
import { HoneError } from "@hone/core";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { workerPython } from "../testing/running-engine.ts";
import { useScriptedGateway } from "../testing/scripted-gateway.ts";

const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "Play." }];
const died = new HoneError("The engine ended.", { code: "engine_error" });

describe.skipIf(!workerPython())("failures of a call", () => {
  const on = useScriptedGateway();

  const long = { answer: { content: "word ".repeat(60) } };

  async function post(body: unknown, signal?: AbortSignal): Promise<Response> {
    return fetch(`${on.gateway.baseURL}/v1/rollouts/ro_1/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "m", messages, ...(body as object) }),
      ...(signal && { signal }),
    });
  }

  it("ends a stream whose engine dies with an error event and without [DONE]", async () => {
    on.engine.lines.push({ ...long, dies: { after: 6, error: died } });
    const response = await post({ stream: true });
    expect(response.status).toBe(200);
    const events = (await response.text()).split("\n\n").filter(Boolean);
    expect(JSON.parse(events.at(-1)!.slice("data: ".length))).toEqual(died.toEnvelope());
    expect(events.join()).not.toContain("[DONE]");
    expect(on.recorded()).toHaveLength(1);
    expect(on.recorded()[0]).toMatchObject({ delivered: false });
    expect(on.recorded()[0]!.sampled).toHaveLength(6);
    expect(on.gateway.counters.brokenStreams).toBe(1);
    expect(on.gateway.router.leases).toBe(0);
  });

  it("is an error of openai-node when the engine dies in mid-stream", async () => {
    on.engine.lines.push({ ...long, dies: { after: 6, error: died } });
    const stream = await on.gateway
      .client("ro_1")
      .chat.completions.create({ model: "m", messages, stream: true });
    let chunks = 0;
    const failure = await (async () => {
      for await (const chunk of stream) chunks += chunk.choices.length;
    })().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(OpenAI.APIError);
    expect(failure).toMatchObject({ code: "engine_error" });
    expect(chunks).toBeGreaterThan(2);
  });

  it.each([true, false])(
    "is a 502 when it dies before the first token, streaming %s",
    async (stream) => {
      on.engine.lines.push({ ...long, dies: { after: 0, error: died } });
      const response = await post({ stream });
      expect(response.status).toBe(502);
      expect(await response.json()).toEqual(died.toEnvelope());
      expect(response.headers.get("x-should-retry")).toBe("true");
      expect(on.recorded()).toEqual([]);
    },
  );

  it("stops the engine when the reader of a stream leaves, and keeps what was sampled", async () => {
    const sampled = 10;
    on.engine.lines.push({ ...long, holds: sampled });
    const stream = await on.gateway
      .client("ro_1")
      .chat.completions.create({ model: "m", messages, stream: true });
    let seen = 0;
    for await (const chunk of stream) {
      seen += chunk.choices.length;
      if (seen === 5) break;
    }
    await expect.poll(() => on.engine.aborted, { interval: 5 }).toBe(1);
    await expect.poll(() => on.recorded().length, { interval: 5 }).toBe(1);
    expect(on.recorded()[0]).toMatchObject({ delivered: false, finishReason: "length" });
    expect(on.recorded()[0]!.sampled.length).toBeGreaterThan(2);
    expect(on.recorded()[0]!.sampled.length).toBeLessThanOrEqual(sampled);
    await expect.poll(() => on.gateway.router.leases).toBe(0);
  });

  it.each([true, false])(
    "stops it when the client leaves before any header, streaming %s",
    async (stream) => {
      on.engine.lines.push({ ...long, holds: 0 });
      const leave = new AbortController();
      const response = post({ stream }, leave.signal).catch((error: unknown) => error);
      await expect.poll(() => on.engine.requests.length, { interval: 5 }).toBe(1);
      leave.abort();
      expect(await response).toBeInstanceOf(Error);
      await expect.poll(() => on.engine.aborted, { interval: 5 }).toBe(1);
      await expect.poll(() => on.gateway.router.leases).toBe(0);
      expect(on.recorded()).toEqual([]);
    },
  );

  it("slows the engine down to a reader that does not read, and delivers nothing to it", async () => {
    const tokens = 60_000;
    on.engine.lines.push({ answer: { content: "a".repeat(tokens) } });
    const body = JSON.stringify({ model: "m", messages, stream: true });
    const url = new URL(on.gateway.baseURL);
    const socket = connect(Number(url.port), url.hostname);
    socket.pause();
    socket.write(
      `POST /v1/rollouts/ro_1/v1/chat/completions HTTP/1.1\r\nhost: ${url.host}\r\n` +
        `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await expect.poll(() => on.engine.said).toBeGreaterThan(0);
    // Until it has said nothing for twenty turns of a thread in which it could have.
    for (let said = 0, quiet = 0; quiet < 20; said = on.engine.said) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      quiet = on.engine.said === said ? quiet + 1 : 0;
    }
    expect(on.engine.said).toBeLessThan(tokens);
    expect(on.recorded()).toEqual([]);
    socket.destroy();
    await expect.poll(() => on.recorded().length).toBe(1);
    expect(on.recorded()[0]!.delivered).toBe(false);
    expect(on.recorded()[0]!.sampled.length).toBeLessThan(tokens);
  });

  it("refuses what it would not honour, by name", async () => {
    const cases: [Record<string, unknown>, string, string][] = [
      [{ stream_options: { include_usage: true } }, "unsupported_parameter", "stream_options"],
      [{ tool_choice: "required" }, "unsupported_parameter", "tool_choice"],
      [{ top_k: 4 }, "unsupported_parameter", "top_k"],
      [{ reasoning_effort: "low" }, "unsupported_parameter", "reasoning_effort"],
      [{ verbosity: "low" }, "unsupported_parameter", "verbosity"],
      [{ web_search_options: {} }, "unsupported_parameter", "web_search_options"],
      [{ functions: [{ name: "f" }] }, "unsupported_parameter", "functions"],
      [{ max_tokens: 4, max_completion_tokens: 5 }, "unsupported_parameter", "max_tokens"],
      [{ n: 0 }, "invalid_request", "n"],
      [{ messages: [] }, "invalid_request", "messages"],
      [{ model: "other" }, "model_not_found", "model"],
    ];
    for (const [body, code, param] of cases) {
      const response = await post(body);
      expect(response.status, param).toBeGreaterThanOrEqual(400);
      const { error } = (await response.json()) as { error: Record<string, unknown> };
      expect(error, JSON.stringify(body)).toMatchObject({ code, param });
    }
    expect(on.engine.requests).toEqual([]);
    expect(on.gateway.router.leases).toBe(0);
  });

  it("records a temperature that is nearly 0 as the greedy sampling that it is", async () => {
    for (const temperature of [1e-6, 0.009, 0.01]) {
      on.engine.lines.push({ answer: { content: "x" } });
      expect((await post({ temperature })).status).toBe(200);
    }
    expect(on.engine.requests.map((request) => request.temperature)).toEqual([0, 0, 0.01]);
    expect(on.recorded().map((completion) => completion.temperature)).toEqual([0, 0, 0.01]);
  });

  it("says how long a prompt is that cannot fit", async () => {
    const response = await post({ messages: [{ role: "user", content: "x ".repeat(9000) }] });
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "messages" });
    expect(error["message"]).toMatch(/The prompt has \d{4,} tokens, and the context holds 8192/);
  });
});
