import * as core from "@hone/core";
import {
  anthropicErrorSchema,
  anthropicModelSchema,
  chatChunkSchema,
  chatCompletionSchema,
  chatRequestSchema,
  completionListSchema,
  completionRecordSchema,
  completionRequestSchema,
  countTokensRequestSchema,
  createRolloutBatchSchema,
  createRolloutSchema,
  engineInfoSchema,
  engineListSchema,
  engineTokenRequestSchema,
  engineTokenSchema,
  errorEnvelopeSchema,
  gcReportSchema,
  gcRequestSchema,
  healthSchema,
  listOperationsSchema,
  listRolloutsSchema,
  messageSchema,
  messagesAnswerSchema,
  messagesEventSchema,
  messagesRequestSchema,
  modelEntrySchema,
  deletedModelSchema,
  deleteModelSchema,
  modelInfoSchema,
  modelListSchema,
  operationEventSchema,
  operationInfoSchema,
  operationListSchema,
  operationSummarySchema,
  patchPolicySchema,
  patchRolloutBatchSchema,
  patchRolloutSchema,
  policyDetailSchema,
  policyInfoSchema,
  policyListSchema,
  putModelSchema,
  removedEngineSchema,
  serverOptionsSchema,
  responsesAnswerSchema,
  responsesEventSchema,
  responsesRequestSchema,
  rewardModelListSchema,
  rewardModelSchema,
  rolloutBatchItemSchema,
  rolloutBatchSchema,
  rolloutInfoSchema,
  rolloutListSchema,
  rolloutSummarySchema,
  rotatedKeySchema,
  scoreRequestSchema,
  scoresSchema,
  submitOperationSchema,
  textChunkSchema,
  textCompletionSchema,
  tokenCountSchema,
  tokenLogprobSchema,
  toolSchema,
  trainConfigSchema,
  trajectorySchema,
  usageSchema,
} from "@hone/core";
import { z } from "zod";
import { descriptions } from "./descriptions.ts";

/** What the document names; everything else is written out where it is used. */
const named = {
  Message: messageSchema,
  Tool: toolSchema,
  ChatRequest: chatRequestSchema,
  ChatCompletion: chatCompletionSchema,
  ChatChunk: chatChunkSchema,
  TokenLogprob: tokenLogprobSchema,
  Usage: usageSchema,
  CompletionRequest: completionRequestSchema,
  Completion: textCompletionSchema,
  CompletionChunk: textChunkSchema,
  ResponsesRequest: responsesRequestSchema,
  ResponsesAnswer: responsesAnswerSchema,
  ResponsesEvent: responsesEventSchema,
  MessagesRequest: messagesRequestSchema,
  MessagesAnswer: messagesAnswerSchema,
  MessagesEvent: messagesEventSchema,
  CountTokensRequest: countTokensRequestSchema,
  TokenCount: tokenCountSchema,
  AnthropicModel: anthropicModelSchema,
  AnthropicError: anthropicErrorSchema,
  ModelEntry: modelEntrySchema,
  ModelEntryList: z.object({ object: z.literal("list"), data: z.array(modelEntrySchema) }),
  PutModel: putModelSchema,
  Model: modelInfoSchema,
  DeletedModel: deletedModelSchema,
  ModelList: modelListSchema,
  Policy: policyInfoSchema,
  PolicyList: policyListSchema,
  PolicyDetail: policyDetailSchema,
  PatchPolicy: patchPolicySchema,
  CreateRollout: createRolloutSchema,
  PatchRollout: patchRolloutSchema,
  CreateRolloutBatch: createRolloutBatchSchema,
  PatchRolloutBatch: patchRolloutBatchSchema,
  Rollout: rolloutInfoSchema,
  RolloutBatch: rolloutBatchSchema,
  RolloutBatchItem: rolloutBatchItemSchema,
  RolloutSummary: rolloutSummarySchema,
  RolloutList: rolloutListSchema,
  CompletionRecord: completionRecordSchema,
  CompletionList: completionListSchema,
  Trajectory: trajectorySchema,
  SubmitOperation: submitOperationSchema,
  TrainConfig: trainConfigSchema,
  Operation: operationInfoSchema,
  OperationEvent: operationEventSchema,
  OperationSummary: operationSummarySchema,
  OperationList: operationListSchema,
  GcRequest: gcRequestSchema,
  GcReport: gcReportSchema,
  ScoreRequest: scoreRequestSchema,
  Scores: scoresSchema,
  RewardModel: rewardModelSchema,
  RewardModelList: rewardModelListSchema,
  RotatedKey: rotatedKeySchema,
  Engine: engineInfoSchema,
  EngineList: engineListSchema,
  EngineTokenRequest: engineTokenRequestSchema,
  EngineToken: engineTokenSchema,
  RemovedEngine: removedEngineSchema,
  ServerOptions: serverOptionsSchema,
  Health: healthSchema,
  Error: errorEnvelopeSchema,
} as const satisfies Record<string, z.ZodType>;

export type SchemaName = keyof typeof named;

const queries = {
  DeleteModel: deleteModelSchema,
  ListOperations: listOperationsSchema,
  ListRollouts: listRolloutsSchema,
} as const;

export type QueryName = keyof typeof queries;

/** A query is text: what its schema makes of it is what it says of it. */
export function queryProperties(name: QueryName): Record<string, JsonSchema> {
  const { properties = {} } = z.toJSONSchema(queries[name], { io: "output", override });
  return properties as Record<string, JsonSchema>;
}

export type JsonSchema = Record<string, unknown>;

const uri = (id: string): string => `#/components/schemas/${id}`;

export function ref(name: SchemaName): { $ref: string } {
  return { $ref: uri(name) };
}

/** That an integer is one that JavaScript can hold goes without saying. */
function override({ jsonSchema }: { jsonSchema: z.core.JSONSchema.BaseSchema }): void {
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
}

/**
 * `components.schemas`, made from the schemas that the routes validate with. Input mode for answers too:
 * none of their schemas has a default or a transform, and a client must expect keys that it does not know.
 */
export function componentSchemas(): Record<string, JsonSchema> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, { io: "input", uri, override });
  return Object.fromEntries(
    Object.entries(named).map(([name, zodSchema]) => {
      // The document's dialect is the one that its schemas are written in, and their names are their places.
      const { $schema: _dialect, $id: _id, ...rest } = schemas[name] as JsonSchema;
      return [name, described(rest, zodSchema)];
    }),
  );
}

/** The schema with descriptions of its fields, which come from the comments in core. */
function described(schema: JsonSchema, zodSchema: z.ZodType): JsonSchema {
  if (zodSchema instanceof z.ZodDiscriminatedUnion) {
    const branches = zodSchema.options as readonly z.ZodType[];
    const ofEach = schema["oneOf"] as JsonSchema[];
    return { ...schema, oneOf: ofEach.map((branch, i) => described(branch, branches[i]!)) };
  }
  if (!(zodSchema instanceof z.ZodObject)) return schema;
  const properties = Object.entries((schema["properties"] ?? {}) as Record<string, JsonSchema>);
  return {
    ...schema,
    properties: Object.fromEntries(
      properties.map(([field, property]) => {
        const description = descriptionOf(field, zodSchema.shape[field]);
        return [field, description ? { ...property, description } : property];
      }),
    ),
  };
}

/** A schema that extends another has the other's own fields, and so its comments. */
function descriptionOf(field: string, fieldSchema: unknown): string | undefined {
  for (const [name, schema] of Object.entries(core)) {
    const text = descriptions[`${name}.${field}`];
    if (!text || !(schema instanceof z.ZodObject)) continue;
    const shape: Record<string, unknown> = schema.shape;
    if (shape[field] === fieldSchema) return text;
  }
  return undefined;
}
