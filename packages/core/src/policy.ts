import { z } from "zod";
import { metricsRecordSchema } from "./operation.ts";

/** Why retention leaves a policy where it is. */
export const keepReasonSchema = z.enum([
  "base",
  "learnt",
  "served",
  "newest",
  "pinned",
  "best",
  "held",
]);
export type KeepReason = z.infer<typeof keepReasonSchema>;

/** One of `GET /v1/models/{model}/policies`. */
export const policyInfoSchema = z.object({
  id: z.string(),
  object: z.literal("hone.policy"),
  model: z.string(),
  step: z.int(),
  /** Whether the engine holds it now. Other policies are loaded again on request. */
  live: z.boolean(),
  pinned: z.boolean(),
  /** Why it stays. If this is empty, retention may remove it the next time. */
  keptAs: z.array(keepReasonSchema),
  /** When retention removed its files; null while they are there. */
  removedAt: z.number().nullable(),
  /** The operation that made it. */
  operationId: z.string(),
  /** Its folder in the data directory; null once it is removed. */
  checkpoint: z.string().nullable(),
  createdAt: z.number(),
});
export type PolicyInfo = z.infer<typeof policyInfoSchema>;

/** `GET /v1/models/{model}/policies/{step}` */
export const policyDetailSchema = policyInfoSchema.extend({
  base: z.string(),
  lora: z.object({ r: z.int(), alpha: z.number() }),
  /** The step it was trained from; null for policy 0, and once it is removed. */
  parent: z.int().nullable(),
  metrics: metricsRecordSchema,
  /** Its files by name; empty once it is removed. */
  files: z.record(z.string(), z.object({ sha256: z.string(), bytes: z.int() })),
  /** Finished evaluation rollouts that were sampled from it, and the mean of their rewards. */
  evaluated: z.object({ rollouts: z.int(), reward: z.number().nullable() }),
});
export type PolicyDetail = z.infer<typeof policyDetailSchema>;

/** `PATCH /v1/models/{model}/policies/{step}` */
export const patchPolicySchema = z.strictObject({ pinned: z.boolean() });

/** How many of the newest policies of a model retention keeps. */
export const keepSchema = z.union([z.int().min(1), z.literal("all")]);
export type Keep = z.infer<typeof keepSchema>;

/** `POST /v1/gc` */
export const gcRequestSchema = z.strictObject({
  /** Only says what would be removed. */
  dryRun: z.boolean().default(false),
  /** How many to keep, instead of what the server was started with. */
  keep: keepSchema.optional(),
  /** Also removes completions of rollouts that failed or expired longer ago than this and never trained. @unit ms */
  olderThanMs: z.number().min(0).optional(),
});
export type GcRequest = z.input<typeof gcRequestSchema>;

export const gcReportSchema = z.object({
  object: z.literal("hone.gc"),
  dryRun: z.boolean(),
  removed: z.array(
    z.object({
      kind: z.enum(["policy", "optimizer", "folder", "staging", "completions"]),
      /** `name@N`, or how many rollouts. */
      name: z.string(),
      bytes: z.int(),
    }),
  ),
  bytes: z.int(),
  /** By how much the database's file became smaller. In a dry run, the size of its free pages. */
  databaseBytes: z.int(),
  /** Free pages that are in the file now; new rows use them. */
  databaseFreeBytes: z.int().default(0),
});
export type GcReport = z.infer<typeof gcReportSchema>;
