import { HoneError } from "@hone/core";
import { Hono, type Context } from "hono";
import type { Logger } from "pino";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { AppEnv } from "../http/env.ts";
import { toHoneError } from "../http/errors.ts";
import { protobufType, readJson, readProtobuf } from "../http/json.ts";
import { type Answer, createFutures } from "./futures.ts";
import { newSession, requireSession } from "./ids.ts";
import type { TinkerParts } from "./parts.ts";
import {
  cancelSchema,
  createModelSchema,
  createSamplerSchema,
  createSessionSchema,
  getInfoSchema,
  heartbeatSchema,
  optimStepSchema,
  retrieveSchema,
  sampleSchema,
  saveForSamplerSchema,
  saveWeightsSchema,
} from "./requests.ts";
import { createSampler, sample, sampleIdOf, samplerInfo } from "./sampling.ts";
import {
  createModel,
  failure,
  infoOf,
  operationAnswer,
  save,
  saveForSampler,
  submitOptimStep,
  submitPass,
} from "./training.ts";

/** How long a poll may last. The client gives it 45 s. @unit ms */
const pollMs = 25_000;

/**
 * What the client is told of itself. Requests come one after the other, so that their order is that of the calls, and
 * nothing is compressed. Samples are polled one by one, and those that nobody waits for are cancelled.
 */
const clientConfig = {
  pjwt_auth_enabled: false,
  parallel_fwdbwd_chunks: false,
  proto_compress_fwdbwd: false,
  fwdbwd_max_chunk_bytes_count: 4_000_000,
  use_pyqwest_transport: false,
  sample_use_retrieve_futures: false,
  sample_join_sampling_session: false,
  custom_loss_server_side: false,
};
const dynamicConfig = { sample_cancel_enabled: true };

/** Tinker's own Python client, with `base_url=".../tinker"` (docs/primitives.md). */
export function tinkerRoutes(parts: TinkerParts & { log: Logger }): Hono<AppEnv> {
  const { operations, base, engine, log } = parts;
  const futures = createFutures();
  const app = new Hono<AppEnv>().basePath("/tinker/api/v1");

  app.onError((error, c) => {
    const known = toHoneError(error, log, c.get("requestId"));
    // The client sends again for minutes what was answered with a 409, whatever else the answer says.
    const status = known.status === 409 ? 400 : known.status;
    return c.json(known.toEnvelope(), status as ContentfulStatusCode);
  });

  app.get("/healthz", (c) => c.json({ status: "ok" }));
  app.post("/client/config", (c) => c.json(clientConfig));
  app.post("/client/dynamic_config", (c) => c.json(dynamicConfig));
  // What the client tells of itself is for Tinker's makers. It is not read.
  app.post("/telemetry", (c) => c.json({ status: "accepted" }));
  app.get("/get_server_capabilities", async (c) => {
    const { maxModelLen } = await engine.info();
    const served = {
      ...{ model_name: base, max_context_length: maxModelLen, trainable: true, sampleable: true },
    };
    return c.json({ supported_models: [served] });
  });

  app.post("/create_session", async (c) => {
    await readJson(c, createSessionSchema);
    return c.json({
      type: "create_session",
      session_id: newSession(),
      warning_message:
        "Hone trains the attention and MLP layers. The unembedding layer is not trained, whatever train_unembed says.",
    });
  });
  app.post("/session_heartbeat", async (c) => {
    requireSession((await readJson(c, heartbeatSchema)).session_id);
    return c.json({ type: "session_heartbeat" });
  });
  app.post("/sessions/:session/finish", (c) => {
    requireSession(c.req.param("session"));
    return c.body(null, 204);
  });

  app.post("/create_model", async (c) => {
    const request = await readJson(c, createModelSchema);
    return later(c, `model:${request.session_id}:${request.model_seq_id}`, () =>
      createModel(parts, request),
    );
  });
  app.post("/get_info", async (c) =>
    c.json(infoOf(parts, (await readJson(c, getInfoSchema)).model_id)),
  );
  app.post("/forward_backward", async (c) => {
    const request_id = await submitPass(parts, c.get("keyId"), await readProtobuf(c));
    return c.json({ request_id });
  });
  app.post("/optim_step", async (c) => {
    const request = await readJson(c, optimStepSchema);
    return c.json({ request_id: await submitOptimStep(parts, c.get("keyId"), request) });
  });
  app.post("/save_weights", async (c) => {
    const request = await readJson(c, saveWeightsSchema);
    return later(c, `save:${request.model_id}:${request.seq_id}`, (signal) =>
      save(parts, c.get("keyId"), request, signal),
    );
  });
  app.post("/save_weights_for_sampler", async (c) => {
    const request = await readJson(c, saveForSamplerSchema);
    return later(c, `save:${request.model_id}:${request.seq_id}`, (signal) =>
      saveForSampler(parts, c.get("keyId"), request, signal),
    );
  });
  app.post("/load_weights", () => {
    throw new HoneError(
      "No model is made from the weights of another here. A model goes on from its newest policy: " +
        'create_lora_training_client(…, user_metadata={"hone_model": "<name>"}) finds it again. ' +
        "`hone import` makes a policy of an adapter in a folder.",
      { code: "unsupported_parameter" },
    );
  });

  app.post("/create_sampling_session", async (c) => {
    const request = await readJson(c, createSamplerSchema);
    const sampling_session_id = await createSampler(parts, c.get("keyId"), request);
    return c.json({ type: "create_sampling_session", sampling_session_id });
  });
  app.get("/samplers/:sampler", (c) => c.json(samplerInfo(parts, c.req.param("sampler"))));
  app.post("/asample", async (c) => {
    const request = await readJson(c, sampleSchema);
    const id = sampleIdOf(request);
    return later(c, id, (signal) => sample(parts, c.get("keyId"), request, signal), {
      sample_sequence_ids: Array.from({ length: request.num_samples }, (_, at) => `${id}:${at}`),
    });
  });

  app.post("/retrieve_future", async (c) => {
    const { request_id: id } = await readJson(c, retrieveSchema);
    const poll = AbortSignal.any([AbortSignal.timeout(pollMs), c.req.raw.signal]);
    const answer = await answerTo(c.get("keyId"), id, poll);
    if (answer === null) {
      // The client asks again at once, and in silence.
      return c.json({ type: "try_again", request_id: id, queue_state: "active" }, 408);
    }
    if ("json" in answer) return c.json(answer.json);
    return c.body(new Uint8Array(answer.proto), 200, { "content-type": protobufType });
  });
  app.post("/cancel_future", async (c) => {
    futures.cancel(c.get("keyId"), (await readJson(c, cancelSchema)).request_id);
    return c.body(null, 204);
  });

  app.all("*", (c) => {
    throw new HoneError(
      `Hone does not have Tinker's ${c.req.method} ${c.req.path.slice(0, 120)}. docs/primitives.md lists what it has of Tinker's API.`,
      { code: "not_found" },
    );
  });

  /** Begins the work, and says where its answer will be. */
  function later(
    c: Context<AppEnv>,
    id: string,
    work: (signal: AbortSignal) => Promise<Answer>,
    also: Record<string, unknown> = {},
  ): Response {
    futures.begin(c.get("keyId"), id, async (signal) => {
      try {
        return await work(signal);
      } catch (error) {
        const { message, status } = toHoneError(error, log, c.get("requestId"));
        return { json: failure(message, status < 500) };
      }
    });
    return c.json({ request_id: id, ...also });
  }

  async function answerTo(keyId: string, id: string, poll: AbortSignal): Promise<Answer | null> {
    if (!/^op_[0-9a-f]+$/.test(id)) return await futures.wait(keyId, id, poll);
    const running = (): boolean => ["queued", "running"].includes(operations.get(keyId, id).status);
    if (running()) await operations.ended(id, poll);
    return running() ? null : operationAnswer(operations.get(keyId, id));
  }

  return app;
}
