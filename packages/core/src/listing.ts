import { z } from "zod";
import { messageSchema, toolSchema } from "./chat.ts";
import {
  modelInfoSchema,
  operationInfoSchema,
  operationTypeSchema,
  resultSummarySchema,
} from "./operation.ts";
import { policyInfoSchema } from "./policy.ts";
import { rolloutInfoSchema, rolloutModeSchema, rolloutStatusSchema } from "./rollout.ts";

/** Query of a list. The newest entries come first. */
const pageQuery = {
  limit: z.coerce.number().int().min(1).max(100).default(20),
  /** The last id of the previous page. */
  after: z.string().optional(),
};

/** Query of `GET /v1/models/{model}/operations` */
export const listOperationsSchema = z.strictObject({
  ...pageQuery,
  type: operationTypeSchema.optional(),
});
export type ListOperations = z.output<typeof listOperationsSchema>;

/** Query of `GET /v1/models/{model}/rollouts` */
export const listRolloutsSchema = z.strictObject({
  ...pageQuery,
  mode: rolloutModeSchema.optional(),
  status: rolloutStatusSchema.optional(),
  /** Only those that were sampled from this policy. */
  step: z.coerce.number().int().min(0).optional(),
  /** Only those that this operation trained or has claimed. */
  operation: z.string().optional(),
  group: z.string().optional(),
});
export type ListRollouts = z.output<typeof listRolloutsSchema>;

const listOf = <T extends z.ZodType>(
  item: T,
): z.ZodObject<{ object: z.ZodLiteral<"list">; data: z.ZodArray<T>; has_more: z.ZodBoolean }> =>
  z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });

export const operationSummarySchema = operationInfoSchema.extend({
  startedAt: z.number().nullable(),
  endedAt: z.number().nullable(),
  result: resultSummarySchema.nullable(),
});
export type OperationSummary = z.infer<typeof operationSummarySchema>;

export const rolloutSummarySchema = rolloutInfoSchema.extend({
  metrics: z.record(z.string(), z.number()),
  /** Why it failed. */
  error: z.object({ type: z.string(), message: z.string() }).nullable(),
  /** The operation that trains or has trained it. */
  trainedBy: z.string().nullable(),
  closedAt: z.number().nullable(),
});
export type RolloutSummary = z.infer<typeof rolloutSummarySchema>;

/** One completion of the ledger: the ids that were sampled, and their logprobs. */
export const completionRecordSchema = z.object({
  id: z.string(),
  object: z.literal("hone.completion"),
  seq: z.int(),
  kind: z.enum(["chat", "text"]),
  /** The completion whose prompt and sampled ids this prompt begins with. */
  parentId: z.string().nullable(),
  /** Why it does not continue an earlier completion, although there were some. */
  splitReason: z.string().nullable(),
  policy: z.string(),
  temperature: z.number(),
  topP: z.number(),
  seed: z.int().nullable(),
  /** Whether a grammar constrained it (`response_format`). It then trains only with `allowConstrained`. */
  constrained: z.boolean(),
  finishReason: z.string(),
  choice: z.int(),
  choices: z.int(),
  /** Whether the client received it. If not, it does not train. */
  delivered: z.boolean(),
  messages: z.array(messageSchema),
  tools: z.array(toolSchema).nullable(),
  answer: messageSchema,
  /** The prompt's ids after the parent's. */
  promptIds: z.array(z.int()),
  sampledIds: z.array(z.int()),
  /** The sampler's logprob of each sampled id. */
  logprobs: z.array(z.number()),
  /** The text of each sampled id. Null if the renderer does not answer. */
  tokens: z.array(z.string()).nullable(),
  createdAt: z.number(),
});
export type CompletionRecord = z.infer<typeof completionRecordSchema>;

/** `GET /v1/states` */
export const modelListSchema = listOf(modelInfoSchema).extend({
  /** Weights of all policies in the engine, and their limit. Policies in use may go past it. @unit bytes */
  adapters: z.object({ bytes: z.int(), maxBytes: z.int() }).optional(),
});
export const policyListSchema = listOf(policyInfoSchema);
export const operationListSchema = listOf(operationSummarySchema);
export type OperationList = z.infer<typeof operationListSchema>;
export const rolloutListSchema = listOf(rolloutSummarySchema);
export type RolloutList = z.infer<typeof rolloutListSchema>;
/** `GET /v1/rollouts/{id}/completions` */
export const completionListSchema = listOf(completionRecordSchema).extend({
  rollout: rolloutSummarySchema,
});
export type CompletionList = z.infer<typeof completionListSchema>;

/** `POST /v1/keys/rotate` */
export const rotatedKeySchema = z.object({
  object: z.literal("hone.key"),
  key: z.string(),
  /** Where the server keeps it, on its own machine. */
  file: z.string(),
});
export type RotatedKey = z.infer<typeof rotatedKeySchema>;
