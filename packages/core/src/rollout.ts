import { z } from "zod";
import { clientIdSchema, modelNameSchema } from "./ids.ts";

export const rolloutModeSchema = z.enum(["train", "eval"]);
export type RolloutMode = z.infer<typeof rolloutModeSchema>;

/** open → finished, failed or expired. */
export const rolloutStatusSchema = z.enum(["open", "finished", "failed", "expired"]);
export type RolloutStatus = z.infer<typeof rolloutStatusSchema>;

/** A number, or null for "none yet" and "does not apply". NaN and infinities are refused. */
export const rewardSchema = z.number({ error: "a reward is a finite number or null" }).nullable();

const metricsSchema = z.record(z.string(), z.number());
const metadataSchema = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.boolean(), z.null()]),
);

/** `POST /v1/rollouts` */
export const createRolloutSchema = z.strictObject({
  /** Chosen by the client, so that a retried request makes no second rollout. */
  id: clientIdSchema.optional(),
  model: modelNameSchema,
  mode: rolloutModeSchema.default("train"),
  /** The number of the policy to use, instead of the newest served one. */
  step: z.int().min(0).optional(),
  group: clientIdSchema.optional(),
  scenario: z.unknown().optional(),
});
export type CreateRollout = z.input<typeof createRolloutSchema>;

/** `PATCH /v1/rollouts/{id}`. Every such request renews the lease, even an empty one. */
export const patchRolloutSchema = z.strictObject({
  status: z.enum(["finished", "failed"]).optional(),
  reward: rewardSchema.optional(),
  metrics: metricsSchema.optional(),
  metadata: metadataSchema.optional(),
  logs: z.array(z.string()).optional(),
  /** Why it failed. */
  error: z.strictObject({ type: z.string(), message: z.string() }).optional(),
});
export type PatchRollout = z.input<typeof patchRolloutSchema>;

export const rolloutInfoSchema = z.object({
  id: z.string(),
  object: z.literal("rollout"),
  model: z.string(),
  mode: rolloutModeSchema,
  status: rolloutStatusSchema,
  group: z.string().nullable(),
  /** The policy it is pinned to, `name@N`; null before the first completion. */
  policy: z.string().nullable(),
  /** The base URL for any OpenAI-compatible SDK: every completion under it belongs to this rollout. */
  baseURL: z.string(),
  reward: z.number().nullable(),
  completions: z.int(),
  /** When it expires without a further request, as Unix time in ms. Null once it is closed. */
  leaseExpiresAt: z.number().nullable(),
  createdAt: z.number(),
});
export type RolloutInfo = z.infer<typeof rolloutInfoSchema>;
