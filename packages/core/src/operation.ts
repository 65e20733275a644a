import { z } from "zod";
import { clientIdSchema, modelNameSchema } from "./ids.ts";
import {
  forwardBackwardOpSchema,
  forwardOpSchema,
  forwardResultSchema,
  optimStepOpSchema,
  optimStepResultSchema,
} from "./primitives.ts";
import { rewardSchema } from "./rollout.ts";
import { bradleyTerryOpSchema, dpoOpSchema, sftOpSchema } from "./supervised.ts";
import { trainConfigSchema } from "./train-config.ts";
import { completionsTrainingSchema } from "./trajectory.ts";

/** Why a group, or a member of one, trained nothing. */
export const dropReasonSchema = z.enum([
  "zero_variance",
  "no_reward",
  "group_too_small",
  "no_tokens",
  "too_long",
  "judge_failed",
  "stale",
  "excluded",
  "constrained",
  "truncated",
  "no_teacher",
]);
export type DropReason = z.infer<typeof dropReasonSchema>;

const loraSchema = z.strictObject({
  r: z.int().min(1).max(256).default(16),
  alpha: z.number().positive().default(32),
});

/** Arguments of a chat template, by vLLM's name. The base's renderer refuses those that it does not know. */
export const chatTemplateKwargsSchema = z
  .record(
    z
      .string()
      .regex(
        /^[A-Za-z_][A-Za-z0-9_]{0,63}$/,
        "a name has at most 64 letters, digits and underscores",
      ),
    z.union([z.string().max(256), z.number(), z.boolean()]),
  )
  .refine((kwargs) => Object.keys(kwargs).length <= 16, { error: "there are at most 16 of them" });
export type ChatTemplateKwargs = z.infer<typeof chatTemplateKwargsSchema>;

/** `PUT /v1/models/{model}`: creates the model, or finds it. */
export const putModelSchema = z.strictObject({
  /** Checks which base the server serves; it does not choose one. */
  base: z.string().optional(),
  lora: loraSchema.optional(),
  seed: z.int().min(0).optional(),
  /** Arguments of the chat template, such as `{"enable_thinking": false}`. @default none */
  chat_template_kwargs: chatTemplateKwargsSchema.optional(),
});
export type PutModel = z.input<typeof putModelSchema>;

export const modelInfoSchema = z.object({
  name: modelNameSchema,
  object: z.literal("hone.model"),
  base: z.string(),
  lora: z.object({ r: z.int(), alpha: z.number() }),
  /** Arguments of the chat template; null for the renderer's defaults. */
  chat_template_kwargs: chatTemplateKwargsSchema.nullable().default(null),
  /** The newest policy with a committed checkpoint. */
  learnt: z.int(),
  /** The newest policy that every live engine serves. */
  served: z.int(),
  /** Where `batches` continues. It is committed with the step that used the batch up. */
  cursor: z.unknown().nullable(),
  /** Ids of its operations that are queued or running, in their order. The cursor may still move. */
  operations: z.array(z.string()).default([]),
  /** How many of its policies the engine holds, and the bytes of their weights. Others are loaded on request. */
  live: z.object({ policies: z.int(), bytes: z.int() }).optional(),
  maxModelLen: z.int(),
  /** The engine sleeps while a step trains (`serve --sleep`): nothing can be played meanwhile. */
  engineSleeps: z.boolean().optional(),
  createdAt: z.number(),
});
export type ModelInfo = z.infer<typeof modelInfoSchema>;

/** Query of `DELETE /v1/models/{model}` */
export const deleteModelSchema = z.strictObject({
  /** Aborts its operations and fails its open rollouts. Without it, deleting a model in use is refused. */
  force: z.enum(["true", "false"]).default("false"),
});

/** OpenAI's answer to a deletion. */
export const deletedModelSchema = z.object({
  id: modelNameSchema,
  object: z.literal("model"),
  deleted: z.literal(true),
});
export type DeletedModel = z.infer<typeof deletedModelSchema>;

const trainMemberSchema = z.strictObject({
  rolloutId: z.string(),
  reward: rewardSchema,
  completions: completionsTrainingSchema.optional(),
  /**
   * With the teacher "given": the teacher's logprob of each sampled token, by the completion's id. An answer that is
   * not named has no teacher.
   */
  teacherLogprobs: z
    .record(
      z.string(),
      z.array(z.number().min(-1e30).max(1e-3, { error: "a logprob is at most 0" })).min(1),
    )
    .optional(),
  /** With a teacher that reads feedback: what it is told about this rollout. Without it the rollout has no teacher. */
  feedback: z.string().min(1).max(100_000).optional(),
});
const trainOpSchema = z.strictObject({
  type: z.literal("train"),
  groups: z
    .array(
      z.strictObject({
        id: clientIdSchema,
        rollouts: z.array(trainMemberSchema),
        /** Set if the group could not be scored: the judge gave no scores, or had nothing to compare. */
        failed: z.enum(["judge_failed", "zero_variance"]).optional(),
      }),
    )
    .min(1),
  config: trainConfigSchema.default(() => trainConfigSchema.parse({})),
  /** The dataset cursor after this step, committed with the checkpoint. */
  cursor: z.unknown().optional(),
  /** The cursor to commit if the step trains nothing. Default: `cursor`. */
  untrainedCursor: z.unknown().optional(),
});
export type TrainOp = z.output<typeof trainOpSchema>;

/** Makes a policy from a PEFT folder on the server's disk. Operators only. */
const importOpSchema = z.strictObject({
  type: z.literal("import"),
  path: z.string().min(1),
});
/** Serves the newest learnt policy, when an earlier publish failed. */
const publishOpSchema = z.strictObject({ type: z.literal("publish") });

/** Every kind of operation. */
const opSchemas = [
  trainOpSchema,
  sftOpSchema,
  dpoOpSchema,
  bradleyTerryOpSchema,
  forwardOpSchema,
  forwardBackwardOpSchema,
  optimStepOpSchema,
  importOpSchema,
  publishOpSchema,
] as const;
export const operationTypeSchema = z.enum(opSchemas.map(({ shape }) => shape.type.value));

/** `POST /v1/models/{model}/operations` */
export const submitOperationSchema = z.strictObject({
  clientToken: clientIdSchema,
  /** The step that the client believes to be the newest learnt one. If it is another, the answer is a 409. */
  expectedStep: z.int().min(0).optional(),
  op: z.discriminatedUnion("type", opSchemas),
});
export type SubmitOperation = z.input<typeof submitOperationSchema>;

const operationStatusSchema = z.enum(["queued", "running", "succeeded", "failed", "aborted"]);
export type OperationStatus = z.infer<typeof operationStatusSchema>;

const groupOutcomeSchema = z.object({
  id: z.string(),
  /** Why it trained nothing; null if it trained. */
  reason: dropReasonSchema.nullable(),
  trainedRollouts: z.int(),
  /** Members left out of a group that trained, counted by reason. */
  dropped: z.partialRecord(dropReasonSchema, z.int()),
  /** Completions of trained members that were left out of the loss, by reason. Absent if there are none. */
  masked: z.partialRecord(dropReasonSchema, z.int()).optional(),
});

export const metricsRecordSchema = z.record(z.string(), z.number().nullable());

export const trainResultSchema = z.object({
  type: z.literal("train"),
  /** False: nothing was trained and the policy did not change; `reasons` says why. */
  trained: z.boolean(),
  step: z.int(),
  policy: z.string(),
  /** How many groups trained nothing, by reason. */
  reasons: z.partialRecord(dropReasonSchema, z.int()),
  groups: z.array(groupOutcomeSchema),
  metrics: metricsRecordSchema,
  checkpoint: z.string().nullable(),
  warnings: z.array(z.string()),
});
export type TrainResult = z.infer<typeof trainResultSchema>;

export const supervisedResultSchema = z.object({
  type: z.enum(["sft", "dpo", "bradley_terry"]),
  /** False: it was an evaluation, or every example was left out; the policy did not change. */
  trained: z.boolean(),
  step: z.int(),
  policy: z.string(),
  /** How many examples took part. */
  examples: z.int(),
  /** Those that were left out, by their place in the operation. */
  dropped: z.array(z.object({ index: z.int(), reason: dropReasonSchema })),
  metrics: metricsRecordSchema,
  checkpoint: z.string().nullable(),
  warnings: z.array(z.string()),
});
export type SupervisedResult = z.infer<typeof supervisedResultSchema>;
const publishResultSchema = z.object({
  type: z.enum(["import", "publish"]),
  step: z.int(),
  policy: z.string(),
  checkpoint: z.string().nullable(),
});
export const operationResultSchema = z.discriminatedUnion("type", [
  trainResultSchema,
  supervisedResultSchema,
  forwardResultSchema,
  optimStepResultSchema,
  publishResultSchema,
]);
export type OperationResult = z.infer<typeof operationResultSchema>;

/** A result as lists show it: without the logprobs, which may be megabytes. */
export const resultSummarySchema = z.discriminatedUnion("type", [
  trainResultSchema,
  supervisedResultSchema,
  forwardResultSchema.omit({ logprobs: true }),
  optimStepResultSchema,
  publishResultSchema,
]);

export const operationInfoSchema = z.object({
  id: z.string(),
  object: z.literal("operation"),
  model: z.string(),
  type: operationTypeSchema,
  clientToken: z.string(),
  status: operationStatusSchema,
  /** The policy N that it began with; null while it is queued. */
  fromStep: z.int().nullable(),
  result: operationResultSchema.nullable(),
  error: z
    .object({
      message: z.string(),
      type: z.string(),
      code: z.string().nullable(),
      param: z.string().nullable(),
    })
    .nullable(),
  createdAt: z.number(),
});
export type OperationInfo = z.infer<typeof operationInfoSchema>;

/** SSE of `GET /v1/operations/{id}/events`: `id` is `seq`, `data` is one of these as JSON. */
export const operationEventSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("started"), seq: z.int(), at: z.number(), step: z.int() }),
  z.object({
    type: z.literal("filtered"),
    seq: z.int(),
    at: z.number(),
    reasons: z.partialRecord(dropReasonSchema, z.int()),
    trainableRollouts: z.int(),
    tokens: z.int(),
  }),
  /** The end of a stage, with its duration. */
  z.object({
    type: z.literal("stage"),
    seq: z.int(),
    at: z.number(),
    stage: z.string(),
    seconds: z.number(),
  }),
  z.object({
    type: z.literal("progress"),
    seq: z.int(),
    at: z.number(),
    done: z.int(),
    total: z.int(),
    tokens: z.int(),
  }),
  /** learnt = step: the commit point. */
  z.object({
    type: z.literal("committed"),
    seq: z.int(),
    at: z.number(),
    step: z.int(),
    checkpoint: z.string(),
  }),
  /** served = step. */
  z.object({
    type: z.literal("published"),
    seq: z.int(),
    at: z.number(),
    step: z.int(),
    policy: z.string(),
  }),
  z.object({ type: z.literal("warning"), seq: z.int(), at: z.number(), message: z.string() }),
  /** The last event: the operation as it ended. */
  z.object({
    type: z.literal("ended"),
    seq: z.int(),
    at: z.number(),
    operation: operationInfoSchema,
  }),
]);
export type OperationEvent = z.infer<typeof operationEventSchema>;
