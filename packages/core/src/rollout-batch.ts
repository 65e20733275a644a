import { z } from "zod";
import { errorEnvelopeSchema } from "./error-envelope.ts";
import { createRolloutSchema, patchRolloutSchema, rolloutInfoSchema } from "./rollout.ts";
import { trajectorySchema } from "./trajectory.ts";

/** Rollouts that one request may begin or end. */
export const rolloutBatchLimit = 256;

/** `POST /v1/batch/rollouts`: several begin by one request. Each stands for itself. */
export const createRolloutBatchSchema = z.strictObject({
  rollouts: z.array(createRolloutSchema).min(1).max(rolloutBatchLimit),
});
export type CreateRolloutBatch = z.input<typeof createRolloutBatchSchema>;

/** `PATCH /v1/batch/rollouts`: several are changed or ended by one request. */
export const patchRolloutBatchSchema = z.strictObject({
  rollouts: z
    .array(patchRolloutSchema.extend({ id: z.string() }))
    .min(1)
    .max(rolloutBatchLimit),
  /** Answers with their trajectories too. */
  trajectories: z.boolean().default(false),
});
export type PatchRolloutBatch = z.input<typeof patchRolloutBatchSchema>;

export const rolloutBatchItemSchema = z.object({
  /** null where there is an error. */
  rollout: rolloutInfoSchema.nullable(),
  /** null unless it was asked for. */
  trajectory: trajectorySchema.nullable(),
  /** What a request for this rollout alone would have been answered. */
  error: errorEnvelopeSchema.shape.error.nullable(),
});
export type RolloutBatchItem = z.infer<typeof rolloutBatchItemSchema>;

export const rolloutBatchSchema = z.object({
  object: z.literal("list"),
  /** In the order of the request. */
  data: z.array(rolloutBatchItemSchema),
});
export type RolloutBatch = z.infer<typeof rolloutBatchSchema>;
