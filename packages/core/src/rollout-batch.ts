import { z } from "zod";
import { errorEnvelopeSchema } from "./error-envelope.ts";
import { createRolloutSchema, patchRolloutSchema, rolloutInfoSchema } from "./rollout.ts";
import { trajectorySchema } from "./trajectory.ts";

/** How many rollouts one request may open or end. */
export const rolloutBatchLimit = 256;

/** `POST /v1/batch/rollouts` opens several rollouts by one request. Each succeeds or fails by itself. */
export const createRolloutBatchSchema = z.strictObject({
  rollouts: z.array(createRolloutSchema).min(1).max(rolloutBatchLimit),
});
export type CreateRolloutBatch = z.input<typeof createRolloutBatchSchema>;

/** `PATCH /v1/batch/rollouts` changes or ends several rollouts by one request. */
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
  /** Null if there is an error. */
  rollout: rolloutInfoSchema.nullable(),
  /** Null unless it was asked for. */
  trajectory: trajectorySchema.nullable(),
  /** The error that a request for this rollout alone would have got. */
  error: errorEnvelopeSchema.shape.error.nullable(),
});
export type RolloutBatchItem = z.infer<typeof rolloutBatchItemSchema>;

export const rolloutBatchSchema = z.object({
  object: z.literal("list"),
  /** In the order of the request. */
  data: z.array(rolloutBatchItemSchema),
});
export type RolloutBatch = z.infer<typeof rolloutBatchSchema>;
