import { createHash } from "node:crypto";
import {
  HoneError,
  type ModelInfo,
  modelNameSchema,
  type OperationInfo,
  type OptimStepOp,
  optimStepOpSchema,
  policyName,
} from "@hone/core";
import type { z } from "zod";
import { issuesToError } from "../http/json.ts";
import type { Answer } from "./futures.ts";
import {
  modelIdOf,
  pathOf,
  readModelId,
  requireSession,
  samplerIdOf,
  tokenOf,
  tokenPrefix,
  type TrainingClient,
  unnamedModel,
} from "./ids.ts";
import { decodePassRequest, encodePassOutput } from "./messages.ts";
import type { TinkerParts } from "./parts.ts";
import { passMetrics, passOp } from "./pass-op.ts";
import type {
  createModelSchema,
  optimStepSchema,
  saveForSamplerSchema,
  saveWeightsSchema,
} from "./requests.ts";
import { seqId } from "./requests.ts";

/** AdamW takes a bound for the gradient's norm. This one is never reached. */
const noClipping = 1e30;
/** Tinker's adapters have this alpha, whatever their rank. */
const alpha = 32;

type CreateModel = z.output<typeof createModelSchema>;
type OptimStep = z.output<typeof optimStepSchema>;
type Save = z.output<typeof saveWeightsSchema>;
type SaveForSampler = z.output<typeof saveForSamplerSchema>;

/** Makes the model, or finds the one that `hone_model` names. A model that is found goes on from its newest policy. */
export async function createModel(parts: TinkerParts, request: CreateModel): Promise<Answer> {
  const {
    session_id: session,
    model_seq_id: nth,
    base_model,
    lora_config,
    user_metadata,
  } = request;
  requireSession(session);
  const given = user_metadata?.hone_model;
  const name = modelNameSchema.safeParse(given ?? unnamedModel({ session, nth }));
  if (!name.success) throw issuesToError(name.error.issues);
  const seed = lora_config?.seed ?? (given === undefined ? seedOf(session, nth) : null);
  await parts.models.put(name.data, {
    base: base_model,
    ...(lora_config && { lora: { r: lora_config.rank, alpha } }),
    ...(seed !== null && { seed }),
  });
  const model_id = modelIdOf({ model: name.data, session, nth });
  return { json: { type: "create_model", model_id } };
}

/** No seed is a random one there. Here it has to be the same when the request is sent again. */
function seedOf(session: string, nth: number): number {
  return createHash("sha256").update(`${session}:${nth}`).digest().readUInt32LE() >>> 1;
}

export function infoOf(parts: TinkerParts, modelId: string): Record<string, unknown> {
  const { base, lora }: ModelInfo = parts.models.info(readModelId(modelId).model);
  return {
    type: "get_info",
    model_id: modelId,
    model_name: base,
    model_data: { model_name: base, tokenizer_id: base },
    is_lora: true,
    lora_rank: lora.r,
  };
}

/** `forward` or `forward_backward`, as an operation of the log. Resolves to its id once it is queued. */
export async function submitPass(
  { operations }: TinkerParts,
  keyId: string,
  body: Uint8Array,
): Promise<string> {
  const request = decodePassRequest(body);
  const client = readModelId(request.modelId);
  if (!seqId.safeParse(request.seqId).success) {
    throw new HoneError(
      `seq_id is ${request.seqId}. A client counts its requests from 0 on, to 999,999,999 at most. Make a training client anew.`,
      { code: "invalid_request", param: "seq_id" },
    );
  }
  const clientToken = tokenOf(client, request.seqId);
  const fresh = callsBefore(operations, keyId, client, clientToken) === 0;
  const op = passOp(request, fresh);
  return (await operations.submit(keyId, client.model, { clientToken, op })).id;
}

/**
 * The step goes by the `forward_backward` that this client sent since its last one, and by no others: if one of them
 * failed, the step is refused.
 */
export async function submitOptimStep(
  { operations }: TinkerParts,
  keyId: string,
  { model_id, seq_id, adam_params }: OptimStep,
): Promise<string> {
  const client = readModelId(model_id);
  const clientToken = tokenOf(client, seq_id);
  const accumulated = callsBefore(operations, keyId, client, clientToken);
  if (accumulated === 0) {
    throw new HoneError(
      "There was no forward_backward since the last optim_step, so there is no gradient. Call it first.",
      { code: "no_gradient" },
    );
  }
  const { learning_rate, beta1, beta2, eps, weight_decay, grad_clip_norm } = adam_params;
  const parsed = optimStepOpSchema.safeParse({
    type: "optim_step",
    accumulated,
    config: {
      ...{ learningRate: learning_rate, beta1, beta2, eps, weightDecay: weight_decay },
      maxGradNorm: grad_clip_norm === 0 ? noClipping : grad_clip_norm,
    },
  } satisfies z.input<typeof optimStepOpSchema>);
  if (!parsed.success) throw issuesToError(parsed.error.issues);
  const op: OptimStepOp = parsed.data;
  return (await operations.submit(keyId, client.model, { clientToken, op })).id;
}

function callsBefore(
  operations: TinkerParts["operations"],
  keyId: string,
  client: TrainingClient,
  before: string,
): number {
  const prefix = tokenPrefix(client);
  return operations.callsSinceStep({ keyId, model: client.model, prefix, before });
}

/** What an operation that has ended says to the client. */
export function operationAnswer({ error, result }: OperationInfo): Answer {
  if (error) return { json: failure(error.message, error.type !== "server_error") };
  switch (result?.type) {
    case "forward":
    case "forward_backward":
      return { proto: encodePassOutput(result.logprobs, passMetrics(result)) };
    case "optim_step": {
      const told = Object.entries(result.metrics).filter(([, value]) => value !== null);
      return { json: { metrics: { ...Object.fromEntries(told), step: result.step } } };
    }
    default:
      throw new HoneError("The operation is not one of Tinker's API.", { code: "not_found" });
  }
}

/** `RequestFailedResponse`. The client raises it, with this message. */
export function failure(error: string, byUser: boolean): Record<string, unknown> {
  return { error, category: byUser ? "user" : "server" };
}

/** Keeps the policy that all earlier requests lead to, and names it. */
export async function save(
  parts: TinkerParts,
  keyId: string,
  { model_id }: Save,
  signal: AbortSignal,
): Promise<Answer> {
  const { model } = readModelId(model_id);
  const step = await stepAfterAll(parts, keyId, model, signal);
  await parts.models.pin(model, step);
  return { json: { type: "save_weights", path: pathOf("weights", { model, step }) } };
}

/** The same with a name; without one a sampler of that policy, which stays as long as other policies do. */
export async function saveForSampler(
  parts: TinkerParts,
  keyId: string,
  { model_id, path, sampling_session_seq_id }: SaveForSampler,
  signal: AbortSignal,
): Promise<Answer> {
  const { model, session } = readModelId(model_id);
  const step = await stepAfterAll(parts, keyId, model, signal);
  const type = "save_weights_for_sampler";
  if (typeof path === "string") {
    await parts.models.pin(model, step);
    return { json: { type, path: pathOf("sampler_weights", { model, step }) } };
  }
  const nth = sampling_session_seq_id ?? 0;
  const sampling_session_id = samplerIdOf(policyName(model, step), session, nth);
  return { json: { type, sampling_session_id } };
}

/** The newest policy when everything that was queued at the call has ended. Later requests do not count. */
async function stepAfterAll(
  { operations, models }: TinkerParts,
  keyId: string,
  model: string,
  signal: AbortSignal,
): Promise<number> {
  const last = operations.unfinished(model, keyId).at(-1);
  if (last === undefined) return models.info(model).learnt;
  await operations.ended(last, signal);
  signal.throwIfAborted();
  const { result, fromStep } = operations.get(keyId, last);
  // One that was aborted while it waited knows no step.
  return result?.step ?? fromStep ?? models.info(model).learnt;
}
