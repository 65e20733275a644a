import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Hono } from "hono";
import { pino } from "pino";
import { HoneError } from "@hone/core";
import { expect } from "vitest";
import type { AppEnv } from "../http/env.ts";
import { installErrors } from "../http/errors.ts";
import type { EngineRequest, Sampler } from "../ports/engine.ts";
import { fileTrainer, type FileTrainer, type TestState } from "../testing/fixtures.ts";
import { test as base } from "../testing/state-test.ts";
import { decodePassRequest } from "./messages.ts";
import { tinkerRoutes } from "./routes.ts";
import { bytesField, varintField } from "./wire.ts";

const log = pino({ level: "silent" });

/** Writes the files of gradients and steps, and computes nothing. */
function loopTrainer(): FileTrainer {
  return {
    ...fileTrainer(),
    async train({ route, stepData, onAccepted }) {
      onAccepted();
      const text = Buffer.from(stepData).toString("latin1");
      const staging = /staging\\?":\\?"([^"\\]+)/.exec(text)?.[1] ?? "";
      const isPass = route === "forward_backward";
      const files = isPass ? ["gradient.safetensors"] : ["adapter_model.safetensors"];
      for (const name of files) await writeFile(join(staging, name), `of ${route}`);
      return { metrics: { loss: 0.5 }, files, ...(isPass && { logprobs: [[-0.5, -0.25]] }) };
    },
  };
}
const test = base.extend("trainer", () => loopTrainer());

/** An engine that says the ids 5 and 6, and keeps what it was asked. */
function sayingEngine(): Sampler & { asked: EngineRequest[]; full: number } {
  const asked: EngineRequest[] = [];
  const engine = {
    asked,
    /** How many requests it has no place for. */
    full: 0,
    info: async () => ({ base: "base", maxModelLen: 512 }),
    async *generate(request: EngineRequest) {
      asked.push(request);
      if (engine.full-- > 0) {
        throw new HoneError("full", { code: "engine_busy", retryAfterMs: 5 });
      }
      for (let index = 0; index < request.n; index++) {
        const said = { tokenIds: [5, 6], logprobs: [-0.5, -0.25], finishReason: "stop" as const };
        const prompt = request.promptLogprobs
          ? { promptLogprobs: request.prompt.slice(1).map(() => -1) }
          : {};
        yield { index, text: "", ...said, ...prompt };
      }
    },
  };
  return engine;
}

function speak(server: TestState) {
  const engine = sayingEngine();
  const app = new Hono<AppEnv>();
  installErrors(app, log);
  app.use(async (c, next) => {
    c.set("keyId", "local");
    await next();
  });
  const info = { stopTokenIds: [0], vocabSize: 100 };
  app.route(
    "/",
    tinkerRoutes({
      ...server.state.tinker,
      base: "base",
      engine,
      renderer: { info: async () => info as never },
      router: server.state.router,
      log,
    }),
  );
  async function call(path: string, body: object | Uint8Array) {
    const isBytes = body instanceof Uint8Array;
    const response = await app.request(`/tinker/api/v1/${path}`, {
      method: "POST",
      body: isBytes ? new Uint8Array(body) : JSON.stringify(body),
      headers: { "content-type": isBytes ? "application/x-protobuf" : "application/json" },
    });
    const type = response.headers.get("content-type") ?? "";
    const bytes = Buffer.from(await response.arrayBuffer());
    const isJson = type.includes("json");
    return {
      status: response.status,
      json: (isJson ? JSON.parse(bytes.toString()) : {}) as Record<string, never>,
      proto: isJson ? null : bytes,
    };
  }
  /** The answer of a future. */
  async function later(path: string, body: object | Uint8Array) {
    const { status, json } = await call(path, body);
    if (status !== 200) throw new Error(`${status}: ${JSON.stringify(json)}`);
    return await call("retrieve_future", {
      request_id: json["request_id"],
      allow_metadata_only: true,
    });
  }
  async function training(name: string) {
    const { json } = await call("create_session", {
      tags: [],
      user_metadata: {},
      sdk_version: "0.38.0",
    });
    const session: string = json["session_id"]!;
    const request = {
      ...{ session_id: session, model_seq_id: 0, base_model: "base", type: "create_model" },
      lora_config: { rank: 4, train_unembed: true, train_mlp: true, train_attn: true },
      ...{ user_metadata: { hone_model: name }, optimizer_config: { type: "adamw" } },
    };
    const made = await later("create_model", request);
    return { session, modelId: made.json["model_id"]! as string };
  }
  return { engine, call, later, training };
}

/** A request of one datum for `cross_entropy`. */
function passRequest(modelId: string, seqId: number): Uint8Array {
  const ids = (of: Int32Array | BigInt64Array) => Buffer.from(of.buffer);
  const tensor = Buffer.concat([bytesField(1, ids(BigInt64Array.of(6n, 7n))), varintField(3, 2)]);
  const chunk = bytesField(1, bytesField(1, ids(Int32Array.of(5, 6))));
  const datum = Buffer.concat([
    bytesField(1, chunk),
    bytesField(2, Buffer.concat([bytesField(1, "target_tokens"), bytesField(2, tensor)])),
  ]);
  const whole = [bytesField(1, modelId), varintField(2, seqId), bytesField(3, datum)];
  return Buffer.concat([...whole, bytesField(4, "cross_entropy")]);
}

const adam = {
  learning_rate: 1e-4,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-12,
  weight_decay: 0,
  grad_clip_norm: 0,
};

test("a loop is operations of the log, and what is sent again is the same", async ({ server }) => {
  const { call, later, training } = speak(server);
  const { modelId } = await training("arith");
  expect(modelId).toMatch(/^arith:s[0-9a-f]{24}:0$/);
  expect((await call("get_info", { model_id: modelId })).json).toMatchObject({
    model_data: { model_name: "base" },
    lora_rank: 4,
  });
  const body = passRequest(modelId, 1);
  expect(decodePassRequest(body).data[0]!.inputs.has("target_tokens")).toBe(true);
  const [one, again] = [await call("forward_backward", body), await call("forward_backward", body)];
  expect(again.json).toEqual(one.json);
  await later("forward_backward", passRequest(modelId, 2));
  const step = { model_id: modelId, seq_id: 3, adam_params: adam, type: "optim_step" };
  // Saved while the step is still on its way, it is the step's policy all the same.
  const stepping = await call("optim_step", step);
  const saved = await later("save_weights", {
    model_id: modelId,
    seq_id: 4,
    path: "x",
    overwrite: false,
  });
  expect(saved.json["path"]).toBe("tinker://arith/weights/1");
  expect((await call("optim_step", step)).json).toEqual(stepping.json);
  const { data } = (await server.call("GET", "/v1/models/arith/operations")).json as {
    data: { type: string; result: { accumulated: number } }[];
  };
  expect(data.map(({ type, result }) => [type, result.accumulated])).toEqual([
    ["optim_step", 2],
    ["forward_backward", 2],
    ["forward_backward", 1],
  ]);
  const policies = (await server.call("GET", "/v1/models/arith/policies")).json as {
    data: { pinned: boolean }[];
  };
  expect(policies.data[1]?.pinned).toBe(true);

  // The next step has its own calls.
  const none = await call("optim_step", { ...step, seq_id: 5 });
  expect([none.status, none.json["error"]]).toMatchObject([400, { code: "no_gradient" }]);
});

test("samples are of the policy that was saved", async ({ server }) => {
  const { call, later, training, engine } = speak(server);
  const { modelId, session } = await training("arith");
  const { json } = await later("save_weights_for_sampler", {
    ...{ model_id: modelId, seq_id: 1, sampling_session_seq_id: 0, kind: "snapshot" },
  });
  const sampler = json["sampling_session_id"]! as string;
  expect(sampler).toBe(`arith@0:${session}:0`);
  const request = {
    ...{ sampling_session_id: sampler, seq_id: 0, num_samples: 2, type: "sample" },
    prompt: { chunks: [{ type: "encoded_text", tokens: [3, 4, 5] }] },
    sampling_params: { max_tokens: 9, temperature: 0.5, top_k: -1, top_p: 1, stop: [7] },
    ...{ prompt_logprobs: true, topk_prompt_logprobs: 0, topk_sample_logprobs: 0 },
    ...{ prompt_alt_tokens_k: 0, record_stability_info: false },
  };
  const sent = await call("asample", request);
  expect(sent.json["sample_sequence_ids"]).toHaveLength(2);
  const answer = await call("retrieve_future", { request_id: sent.json["request_id"] });
  expect(answer.proto?.length).toBeGreaterThan(30);
  expect(engine.asked).toHaveLength(1);
  expect(engine.asked[0]).toMatchObject({
    ...{ model: "arith@0", prompt: [3, 4, 5], n: 2, maxTokens: 9, temperature: 0.5 },
    ...{ stop: [], stopTokenIds: [0, 7], promptLogprobs: true },
  });
  // Sent again it is not sampled again.
  await later("asample", request);
  expect(engine.asked).toHaveLength(1);

  // Where the engines are full, it waits.
  engine.full = 2;
  expect((await later("asample", { ...request, seq_id: 1 })).proto?.length).toBeGreaterThan(30);
  expect(engine.asked).toHaveLength(4);

  const refuse = async (changes: object, message: RegExp) => {
    const { status, json: body } = await call("asample", { ...request, seq_id: 9, ...changes });
    expect(status).toBe(400);
    expect(JSON.stringify(body)).toMatch(message);
  };
  const params = request.sampling_params;
  await refuse({ sampling_params: { ...params, top_k: 5 } }, /there is no top_k here/);
  await refuse({ sampling_params: { ...params, stop: [] } }, /end token always ends an answer/);
  await refuse({ prompt_alt_tokens_k: 1 }, /no alternatives/);
  await refuse({ prompt: { chunks: [{ type: "image", tokens: [] }] } }, /only text is read/);
  await refuse({ unheard: 1 }, /does not know this parameter/);
  // What is wrong for this base is found once it is looked at.
  const prompt = { chunks: [{ type: "encoded_text", tokens: [100] }] };
  const foreign = await later("asample", { ...request, seq_id: 10, prompt });
  expect(foreign.json["category"]).toBe("user");
  expect(foreign.json["error"]).toMatch(/0 to 99, got 100/);
});

test("what Tinker has and Hone has not is refused with words", async ({ server }) => {
  const { call, training } = speak(server);
  const { modelId, session } = await training("arith");
  const saving = { model_id: modelId, seq_id: 1, path: "x" };
  const cases: [string, object, number, RegExp][] = [
    ["load_weights", {}, 400, /A model goes on from its newest policy/],
    ["copy_weights", {}, 404, /does not have Tinker's POST .*copy_weights/],
    ["save_weights", { ...saving, ttl_seconds: 3600 }, 400, /nothing expires here/],
    ["save_weights", { ...saving, overwrite: true }, 400, /never overwritten/],
    [
      "save_weights_for_sampler",
      { ...saving, kind: "inflight" },
      400,
      /a sampler is of one policy/,
    ],
    ["get_info", { model_id: "arith" }, 404, /There is no model_id/],
    ["session_heartbeat", { session_id: "x" }, 404, /There is no session/],
    ["retrieve_future", { request_id: "x" }, 410, /the server was restarted/],
    [
      "create_sampling_session",
      { session_id: session, sampling_session_seq_id: 0, base_model: "another" },
      400,
      /This server's base is/,
    ],
  ];
  for (const [path, body, status, message] of cases) {
    const answer = await call(path, body);
    expect([path, answer.status]).toEqual([path, status]);
    expect(JSON.stringify(answer.json)).toMatch(message);
  }
});

test("numbers of requests that no name or token can hold are refused", async ({ server }) => {
  const { call, training } = speak(server);
  const { session, modelId } = await training("arith");
  const sampler = {
    ...{ session_id: session, sampling_session_seq_id: 1_000_000_000, base_model: "base" },
  };
  expect(await call("create_sampling_session", sampler)).toMatchObject({ status: 400 });
  const least = await call("create_sampling_session", {
    ...sampler,
    sampling_session_seq_id: 999_999_999,
  });
  expect(least.status).toBe(200);
  const pass = await call("forward_backward", passRequest(modelId, 1_000_000_000));
  expect(pass).toMatchObject({ status: 400 });
  expect(JSON.stringify(pass.json)).toContain("seq_id is 1000000000");
});
