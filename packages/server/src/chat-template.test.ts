import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRendererChild, workerPython } from "./testing/running-engine.ts";
import { createScriptedEngine } from "./testing/scripted-engine.ts";
import { serveGateway } from "./testing/served-gateway.ts";
import { adapterList, fileTrainer, openTestState, temporaryFolder } from "./testing/fixtures.ts";
import { createRendererClient, type RendererClient } from "./renderer/http-renderer.ts";
import type { Child } from "./supervise/child.ts";

const off = { enable_thinking: false };
const emptyThought = "<think>\n\n</think>\n\n";

describe.skipIf(!workerPython())("chat_template_kwargs of a model", () => {
  let child: Child;
  let renderer: RendererClient;

  beforeAll(async () => {
    child = await startRendererChild(["--renderer", "qwen3"]);
    renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
  });
  afterAll(async () => {
    await renderer?.close();
    await child?.stop();
  });

  it("are kept with it, given to its calls, and never another's", async () => {
    const folder = await temporaryFolder();
    const engine = adapterList();
    const options = { engine: () => engine, trainer: fileTrainer(), renderer };
    let server = await openTestState(folder.path, options);
    const put = (name: string, body: object) => server.call("PUT", `/v1/models/${name}`, body);
    expect((await put("plain", {})).json).toMatchObject({ chat_template_kwargs: null });
    const body = { chat_template_kwargs: off };
    expect((await put("m", body)).json).toMatchObject({ served: 0, ...body });
    server = await server.reopen();
    for (const same of [body, {}]) expect((await put("m", same)).json).toMatchObject(body);
    for (const chat_template_kwargs of [{ enable_thinking: true }, {}]) {
      const { status, json } = await put("m", { chat_template_kwargs });
      expect(status).toBe(409);
      expect(json.error).toMatchObject({ code: "model_mismatch", param: "chat_template_kwargs" });
    }
    expect((await put("plain", body)).status).toBe(409);
    expect((await put("plain", { chat_template_kwargs: {} })).status).toBe(200);
    const router = server.state.router;
    const leases = await Promise.all(
      ["m", "m@0", "plain"].map((n) => router.leaseForModel("k", n)),
    );
    expect(leases.map((lease) => lease.chatTemplateKwargs)).toEqual([off, off, null]);
    for (const lease of leases) lease.release();
    await server.state.close();
    await folder.remove();
  });

  it("that the base does not know make no model", async () => {
    const folder = await temporaryFolder();
    const engine = adapterList();
    const trainer = fileTrainer();
    const server = await openTestState(folder.path, { engine: () => engine, trainer, renderer });
    for (const [kwargs, param] of [
      [{ enable_thinkin: false }, "chat_template_kwargs.enable_thinkin"],
      [{ enable_thinking: "sometimes" }, "chat_template_kwargs"],
      [{ enable_thinking: null }, "chat_template_kwargs.enable_thinking"],
      [{ "a b": 1 }, "chat_template_kwargs.a b"],
      [
        Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 1])),
        "chat_template_kwargs",
      ],
    ] as const) {
      const body = { chat_template_kwargs: kwargs };
      const { status, json } = await server.call("PUT", "/v1/models/m", body);
      expect([status, json.error.param]).toEqual([400, param]);
    }
    expect((await server.call("GET", "/v1/models/m/state")).status).toBe(404);
    await server.state.close();
    await folder.remove();
  });

  it("shape prompts, bridges and answers; a request's own are refused and told the option", async () => {
    const engine = createScriptedEngine(renderer.withTemplate(off));
    const gateway = await serveGateway(engine, renderer, "m@1", off);
    const client = gateway.client("ro_1");
    const messages = [{ role: "user" as const, content: "Which way?" }];
    engine.lines.push({ answer: { content: "left" } }, { answer: { content: "up" } });
    const { choices } = await client.chat.completions.create({ model: "m", messages });
    expect(choices[0]!.message.content).toBe("left");
    await client.chat.completions.create({
      model: "m",
      messages: [...messages, choices[0]!.message, { role: "user", content: "And now?" }],
    });
    const texts = await Promise.all(
      engine.requests.map(async ({ prompt }) =>
        (await renderer.tokens(prompt)).map(({ token }) => token).join(""),
      ),
    );
    expect(texts[0]!.endsWith(emptyThought)).toBe(true);
    expect(texts[1]!.startsWith(`${texts[0]}left`)).toBe(true);
    expect(texts[1]!.endsWith(emptyThought)).toBe(true);
    const plain = await renderer.render(messages, null);
    expect(engine.requests[0]!.prompt.length).toBeGreaterThan(plain.length);
    const own = { model: "m", messages, chat_template_kwargs: off };
    await expect(client.chat.completions.create(own)).rejects.toMatchObject({
      status: 400,
      param: "chat_template_kwargs",
      message: expect.stringContaining("chatTemplateKwargs"),
    });
    await gateway.close();
  });
});
