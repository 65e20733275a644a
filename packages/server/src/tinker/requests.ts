import { z } from "zod";

// What Tinker's client 0.38 sends as JSON. A field that Hone cannot act by takes its neutral value alone; docs/primitives
// lists them. `type` only repeats the route.

/** Refuses every value but the neutral one, and says why. Null is the client's word for nothing. */
function only(neutral: string | number | boolean | null, why: string) {
  return z
    .unknown()
    .refine((value) => value === neutral || value === null, { error: why })
    .optional();
}

/** Says nothing of what happens: it describes, for lists that Hone does not have. */
const description = z.record(z.string(), z.unknown()).nullish();
/** A client counts its requests from 0 on. Names and tokens are made of these numbers, with nine digits at most. */
export const seqId = z.int().min(0).max(999_999_999);
const kind = (name: string) => z.literal(name).optional();

export const createSessionSchema = z.strictObject({
  tags: z.array(z.string()).optional(),
  user_metadata: description,
  sdk_version: z.string(),
  project_id: z.string().nullish(),
  display_name: z.string().nullish(),
  type: kind("create_session"),
});

export const heartbeatSchema = z.strictObject({
  session_id: z.string(),
  type: kind("session_heartbeat"),
});

const loraSchema = z.strictObject({
  rank: z.int().min(1).max(256),
  seed: z.int().min(0).nullish(),
  train_mlp: only(true, "the MLP layers are always trained here. Leave it out"),
  train_attn: only(true, "the attention layers are always trained here. Leave it out"),
  // True is the client's default, and the layer is not trained: the session's warning says so.
  train_unembed: z.boolean().optional(),
});

const otherOptimizer =
  "AdamW is the only optimizer here. Leave it out, and pass AdamParams to optim_step";
const optimizerSchema = z.looseObject({ type: only("adamw", otherOptimizer) });

export const createModelSchema = z.strictObject({
  session_id: z.string(),
  model_seq_id: seqId,
  base_model: z.string(),
  lora_config: loraSchema.nullish(),
  optimizer_config: optimizerSchema.optional(),
  /** `hone_model` names the model; the rest describes. */
  user_metadata: z.looseObject({ hone_model: z.string().optional() }).nullish(),
  type: kind("create_model"),
});

export const getInfoSchema = z.strictObject({ model_id: z.string(), type: kind("get_info") });

export const optimStepSchema = z.strictObject({
  model_id: z.string(),
  seq_id: seqId,
  optimizer_params: only(null, otherOptimizer),
  adam_params: z.strictObject({
    learning_rate: z.number(),
    beta1: z.number(),
    beta2: z.number(),
    eps: z.number(),
    weight_decay: z.number(),
    /** 0 is no clipping. */
    grad_clip_norm: z.number().min(0),
  }),
  type: kind("optim_step"),
});

const noExpiry = "nothing expires here: what is saved stays until it is unpinned. Leave it out";
const saved = {
  model_id: z.string(),
  seq_id: seqId,
  /** A policy has a number: the name is not kept, and the path in the answer is what to go by. */
  path: z.string().nullish(),
  ttl_seconds: only(null, noExpiry),
  user_metadata: description,
};

export const saveWeightsSchema = z.strictObject({
  ...saved,
  overwrite: only(false, "policies have numbers and are never overwritten. Leave it out"),
  type: kind("save_weights"),
});

export const saveForSamplerSchema = z.strictObject({
  ...saved,
  sampling_session_seq_id: seqId.nullish(),
  kind: only(
    "snapshot",
    'a sampler is of one policy here. Use "snapshot", and make one after each optim_step',
  ),
  type: kind("save_weights_for_sampler"),
});

export const createSamplerSchema = z.strictObject({
  session_id: z.string(),
  sampling_session_seq_id: seqId,
  base_model: z.string().nullish(),
  model_path: z.string().nullish(),
  type: kind("create_sampling_session"),
});

const chunkSchema = z.strictObject({
  type: only("encoded_text", "only text is read here, as token ids"),
  tokens: z.array(
    z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  ),
});

const promptAlone = "of the prompt only the logprobs of its own tokens are told";

export const sampleSchema = z.strictObject({
  sampling_session_id: z.string(),
  seq_id: seqId,
  num_samples: z.int().min(1).max(64).default(1),
  prompt: z.strictObject({ chunks: z.array(chunkSchema) }),
  sampling_params: z.strictObject({
    max_tokens: z.int().min(1).nullish(),
    seed: z.int().nullish(),
    stop: z
      .union([z.string().min(1), z.array(z.string().min(1)), z.array(z.int().min(0))])
      .nullish()
      .refine((stop) => !Array.isArray(stop) || stop.length > 0, {
        error: "it is empty, and the base's end token always ends an answer here. Leave it out",
      }),
    temperature: z.number().min(0).max(2).default(1),
    top_p: z.number().gt(0).max(1).default(1),
    top_k: only(-1, "there is no top_k here: only -1 (no limit) is possible"),
  }),
  prompt_logprobs: z.boolean().nullish(),
  prompt_logprobs_last_n: z.int().min(1).nullish(),
  topk_sample_logprobs: z.int().min(0).max(20, { error: "20 tokens a place at most" }).default(0),
  topk_prompt_logprobs: only(0, promptAlone),
  target_prompt_logprobs: only(null, promptAlone),
  prompt_alt_tokens_k: only(0, "no alternatives to the prompt's tokens are drawn"),
  record_stability_info: only(false, "there is no stable_reinforce here. Leave it out"),
  type: kind("sample"),
});
export type SampleRequest = z.output<typeof sampleSchema>;

export const retrieveSchema = z.strictObject({
  request_id: z.string(),
  /** An answer always comes whole. */
  allow_metadata_only: z.boolean().optional(),
});

export const cancelSchema = z.strictObject({ request_id: z.string() });
