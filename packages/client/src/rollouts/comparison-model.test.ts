import { ProviderStream } from "@hone/core";
import OpenAI from "openai";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { compare } from "../evaluation/compare.ts";
import { ComparisonModel } from "./comparison-model.ts";
import { gather } from "./gather.ts";
import type { RolloutModel } from "./rollout-model.ts";
import { send, startRouteServer, until } from "../testing/route-server.ts";
import type { Handler, RouteServer } from "../testing/route-server.ts";

let server: RouteServer | undefined;
afterEach(() => server?.close());

const usage = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
const call = { id: "c1", type: "function", function: { name: "f", arguments: '{"a":1}' } };

/** Answers with how many messages it was sent, and calls a tool on the second turn. */
const api: [string, Handler] = [
  "POST /v1/chat/completions",
  ({ body }, response) => {
    const content = `${body.messages.length} messages`;
    const calls = body.messages.length === 3;
    if (!body.stream) {
      const message = { role: "assistant", content, ...(calls ? { tool_calls: [call] } : {}) };
      send(response, { id: "x", choices: [{ index: 0, message, finish_reason: "stop" }], usage });
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const deltas: object[] = [{ role: "assistant", content: "" }, { content: content.slice(0, 3) }];
    deltas.push({ content: content.slice(3) });
    if (calls) {
      const { id, type } = call;
      deltas.push({ tool_calls: [{ index: 0, id, type, function: { name: "f", arguments: "" } }] });
      deltas.push({ tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] });
      deltas.push({ tool_calls: [{ index: 0, function: { arguments: ":1}" } }] });
    }
    for (const delta of deltas) {
      const chunk = { id: "x", choices: [{ index: 0, delta, finish_reason: null }] };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`);
    }
    const last = { id: "x", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] };
    response.write(`data: ${JSON.stringify(last)}\n\n`);
    response.write(`data: ${JSON.stringify({ id: "x", choices: [], usage })}\n\n`);
    response.end("data: [DONE]\n\n");
  },
];

async function elsewhere(...routes: [string, Handler][]): Promise<ComparisonModel> {
  server = await startRouteServer(routes);
  return new ComparisonModel({ baseURL: `${server.url}/v1`, apiKey: "theirs", model: "gpt" });
}

async function twoTurns(model: RolloutModel, { stream }: { stream: boolean }) {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI({ ...connection, maxRetries: 0 });
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "Hello." }];
  for (const next of ["And?", null]) {
    const answer = stream
      ? await client.chat.completions.stream({ model: name, messages }).finalMessage()
      : (await client.chat.completions.create({ model: name, messages })).choices[0]!.message;
    messages.push({ role: "assistant", content: answer.content });
    if (next) messages.push({ role: "user", content: next });
  }
  return { reward: messages.length, metrics: { turns: 2 } };
}

it("calls that share an index and have no ids are calls of their own", () => {
  const stream = new ProviderStream();
  for (const [name, args] of Object.entries({ f: '{"a":1}', g: "{}" })) {
    const calls = [{ index: 0, function: { name, arguments: args } }];
    stream.add(JSON.stringify({ choices: [{ index: 0, delta: { tool_calls: calls } }] }));
  }
  expect(stream.answer()?.calls.map((one) => [one.name, one.arguments])).toEqual([
    ["f", '{"a":1}'],
    ["g", "{}"],
  ]);
});

it("a model to compare with has no password in its URL, and says none", () => {
  const options = { apiKey: "k", model: "m", baseURL: "https://user:canary@api.test/v1" };
  expect(() => new ComparisonModel(options)).toThrow(/Leave them out/);
  expect(() => new ComparisonModel(options)).not.toThrow(/canary/);
});

it.each(["text/plain", "application/json"])("reads a stream that calls itself %s", async (type) => {
  const chunk = { choices: [{ index: 0, delta: { content: "Hi" }, finish_reason: "stop" }] };
  const model = await elsewhere([
    "POST /v1/chat/completions",
    (_, response) => {
      response.writeHead(200, { "content-type": type });
      response.end(`: wait\r\n\r\ndata: ${JSON.stringify(chunk)}`);
    },
  ]);
  const rollout = async (m: RolloutModel) => {
    const { baseURL, fetch } = m.connection();
    const body = JSON.stringify({ stream: true, messages: [{ role: "user", content: "?" }] });
    await (await fetch(`${baseURL}/chat/completions`, { method: "POST", body })).text();
    return 1;
  };
  const [group] = await gather(model, rollout, [1], { mode: "eval" });
  expect(group?.trajectories[0]?.messages.at(-1)).toMatchObject({ content: "Hi" });
});

describe("a model to compare with", () => {
  it.each([false, true])("leaves a trajectory like any other, stream %s", async (stream) => {
    const model = await elsewhere(api);
    const [group] = await gather(model, twoTurns, [{ stream }], { mode: "eval" });
    expect(group?.exceptions).toEqual([]);
    const [trajectory] = group?.trajectories ?? [];
    expect(trajectory).toMatchObject({
      rolloutId: null,
      model: "gpt",
      policy: null,
      reward: 4,
      metrics: { turns: 2 },
      tools: null,
      histories: [],
      usage: { completions: 2, promptTokens: 10, completionTokens: 4 },
    });
    expect(trajectory?.messages.map(({ role, content }) => [role, content])).toEqual([
      ["user", "Hello."],
      ["assistant", "1 messages"],
      ["user", "And?"],
      ["assistant", "3 messages"],
    ]);
    expect(trajectory?.messages.at(-1)).toMatchObject({ tool_calls: [call] });
    expect(server?.received.every(({ headers }) => headers.authorization === "Bearer theirs")).toBe(
      true,
    );
    const twice = [group!, group!];
    expect(compare(twice, twice)).toMatchObject({ pairs: 2, difference: 0 });
  });

  it("knows a call whose reader left at its end, and branches by their tool calls", async () => {
    const model = await elsewhere(api);
    const rollout = async (m: RolloutModel) => {
      const { baseURL, model: name, fetch } = m.connection();
      const ask = async (messages: object[]) => {
        const body = JSON.stringify({ model: name, messages, stream: true });
        const response = await fetch(`${baseURL}/chat/completions`, { method: "POST", body });
        const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
        for (let text = ""; !text.includes("[DONE]");) text += (await reader.read()).value ?? "";
        await reader.cancel();
      };
      const user = { role: "user", content: "?" };
      const calling = (args: string) => ({
        role: "assistant",
        content: null,
        tool_calls: [{ ...call, function: { name: "f", arguments: args } }],
      });
      const tool = { role: "tool", tool_call_id: "c1", content: "x" };
      await ask([user]);
      await ask([user, calling("1"), tool, user]);
      await ask([user, calling("2"), tool, user, { role: "assistant", content: "5" }, user]);
      return 1;
    };
    const [group] = await gather(model, rollout, [1], { mode: "eval" });
    const [trajectory] = group?.trajectories ?? [];
    expect(trajectory?.usage.completions).toBe(3);
    expect([trajectory, ...(trajectory?.histories ?? [])].map((t) => t?.messages.length)).toEqual([
      7, 5, 2,
    ]);
  });

  it("is never trained", async () => {
    const model = await elsewhere(api);
    await expect(gather(model, twoTurns, [{ stream: false }])).rejects.toMatchObject({
      code: "invalid_config",
      param: "mode",
    });
    expect(server?.received).toEqual([]);
  });

  it("ends a rollout past its time and names the call that it was in", async () => {
    const model = await elsewhere(["POST /v1/chat/completions", () => {}]);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const options = { mode: "eval", timeoutMs: 100, maxExceptions: 1 } as const;
      const gathering = gather(model, twoTurns, [{ stream: false }], options);
      await until(() => server?.received.length === 1);
      vi.advanceTimersByTime(100);
      const [group] = await gathering;
      expect(group?.trajectories).toEqual([]);
      expect(group?.exceptions).toMatchObject([
        { rolloutId: null, type: "timeout", duringCall: 1 },
      ]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("keeps what was not read to its end out of the trajectory", async () => {
    const model = await elsewhere([
      api[0],
      (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        const chunk = { id: "x", choices: [{ index: 0, delta: { content: "half" } }] };
        response.write(`data: ${JSON.stringify(chunk)}\n\n`, () => response.end());
      },
    ]);
    const rollout = async (m: RolloutModel) => {
      const { model: name, ...connection } = m.connection();
      const client = new OpenAI({ ...connection, maxRetries: 0 });
      const messages = [{ role: "user" as const, content: "?" }];
      for await (const _ of await client.chat.completions.create({
        model: name,
        messages,
        stream: true,
      }));
      return 1;
    };
    const [group] = await gather(model, rollout, [1], { mode: "eval" });
    expect(group?.trajectories[0]).toMatchObject({ messages: [], usage: { completions: 0 } });
  });

  it("says so once where it cannot read an answer", async () => {
    const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
    onTestFinished(() => emit.mockRestore());
    const model = await elsewhere([
      api[0],
      (_, response) => send(response, { result: { output_text: "hi\u001b[2J" } }),
    ]);
    const rollout = async (m: RolloutModel) => {
      const { baseURL, model: name, fetch } = m.connection();
      const body = JSON.stringify({ model: name, messages: [{ role: "user", content: "?" }] });
      await (await fetch(`${baseURL}/chat/completions`, { method: "POST", body })).json();
      return 1;
    };
    await gather(model, rollout, [1, 2], { mode: "eval" });
    // `gather` says once more that these rollouts hold no completion.
    const unread = emit.mock.calls.filter(([text]) => String(text).startsWith("An answer of"));
    expect(unread).toHaveLength(1);
    expect(unread[0]?.[0]).toMatch(/its message is missing from the trajectory.*"\{/);
    expect(unread[0]?.[0]).not.toContain("\u001b");
  });

  it("keeps conversations of the Responses API, which repeat nothing", async () => {
    let answers = 0;
    const model = await elsewhere([
      "POST /v1/responses",
      ({ body }, response) => {
        answers += 1;
        const output =
          body.previous_response_id === undefined
            ? [{ type: "function_call", call_id: "c1", name: "f", arguments: '{"a":1}' }]
            : [
                { type: "reasoning", summary: [{ text: "so" }] },
                {
                  type: "message",
                  role: "assistant",
                  content: [{ type: "output_text", text: "4" }],
                },
              ];
        send(response, {
          id: `resp_${answers}`,
          status: "completed",
          output,
          usage: { input_tokens: 3, output_tokens: 2 },
        });
      },
    ]);
    const rollout = async (m: RolloutModel) => {
      const { model: name, ...connection } = m.connection();
      const client = new OpenAI({ ...connection, maxRetries: 0 });
      const first = await client.responses.create({
        model: name,
        instructions: "Be brief.",
        input: "2 + 2?",
      });
      const output = [{ type: "function_call_output" as const, call_id: "c1", output: "4" }];
      await client.responses.create({ model: name, previous_response_id: first.id, input: output });
      return 1;
    };
    const [group] = await gather(model, rollout, [1], { mode: "eval" });
    expect(group?.trajectories[0]).toMatchObject({
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "2 + 2?" },
        { role: "assistant", tool_calls: [call] },
        { role: "tool", tool_call_id: "c1", content: "4" },
        { role: "assistant", content: "4", reasoning_content: "so" },
      ],
      turns: [
        { message: 2, finish_reason: "completed" },
        { message: 4, finish_reason: "completed" },
      ],
      histories: [],
      usage: { completions: 2, promptTokens: 6, completionTokens: 4 },
    });
  });

  it("reads Anthropic's Messages and bodies that are bytes", async () => {
    const model = await elsewhere([
      "POST /v1/messages",
      (_, response) =>
        send(response, {
          ...{ id: "msg_1", type: "message", role: "assistant", stop_reason: "end_turn" },
          content: [{ type: "text", text: "4" }],
          usage: { input_tokens: 3, output_tokens: 1 },
        }),
    ]);
    const rollout = async (m: RolloutModel) => {
      const { baseURL, model: name, fetch } = m.connection();
      const messages = [
        { role: "user", content: "2 + 2?" },
        {
          role: "assistant",
          content: [{ type: "tool_use", id: "c1", name: "f", input: { a: 1 } }],
        },
        { role: "user", content: [{ type: "tool_result", tool_use_id: "c1", content: "4" }] },
      ];
      const body = new TextEncoder().encode(
        JSON.stringify({ model: name, system: "Be brief.", messages }),
      );
      await (await fetch(`${baseURL}/messages`, { method: "POST", body })).json();
      return 1;
    };
    const [group] = await gather(model, rollout, [1], { mode: "eval" });
    expect(group?.trajectories[0]?.messages).toMatchObject([
      { role: "system", content: "Be brief." },
      { role: "user", content: "2 + 2?" },
      { role: "assistant", tool_calls: [call] },
      { role: "tool", tool_call_id: "c1", content: "4" },
      { role: "assistant", content: "4" },
    ]);
  });
});

it.each<[string, (model: RolloutModel) => unknown, string]>([
  ["settings for Anthropic's SDK", (m) => m.anthropic(), "Use model.connection()"],
  ["policies of this server", (m) => m.at(0), "a client of your own"],
])("has no %s", async (_what, ask, said) => {
  const [group] = await gather(
    await elsewhere(),
    (m) => {
      ask(m);
      return 0;
    },
    [{}],
    { groupSize: 1, maxExceptions: 1, mode: "eval" },
  );
  expect(group!.exceptions[0]!.message).toContain(said);
});
