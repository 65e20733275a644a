import { z } from "zod";
import { messageSchema, toolSchema } from "./chat.ts";

/**
 * What a rollout leaves for the user: plain readonly data. `messages` is the longest conversation of
 * the rollout; conversations that do not continue one another stand in `histories`.
 */
export const trajectorySchema = z.object({
  rolloutId: z.string().nullable(),
  model: z.string().nullable(),
  /** `name@N` that every completion of it was sampled from; null where Hone did not sample it. */
  policy: z.string().nullable(),
  messages: z.array(messageSchema),
  tools: z.array(toolSchema).nullable(),
  histories: z.array(
    z.object({ messages: z.array(messageSchema), tools: z.array(toolSchema).nullable() }),
  ),
  reward: z.number().nullable(),
  metrics: z.record(z.string(), z.number()),
  metadata: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
  logs: z.array(z.string()),
  usage: z.object({ completions: z.int(), promptTokens: z.int(), completionTokens: z.int() }),
  startedAt: z.number(),
  durationMs: z.number(),
});
export type Trajectory = z.infer<typeof trajectorySchema>;

export const rolloutExceptionSchema = z.object({
  rolloutId: z.string().nullable(),
  type: z.string(),
  message: z.string(),
  /** The model call it was in, 1 for the first; null when it was in none. */
  duringCall: z.int().nullable(),
});
export type RolloutException = z.infer<typeof rolloutExceptionSchema>;

/** Trajectories of one scenario, compared with one another. */
export const groupSchema = z.object({
  id: z.string(),
  scenario: z.unknown().optional(),
  trajectories: z.array(trajectorySchema),
  exceptions: z.array(rolloutExceptionSchema),
  metadata: z.record(z.string(), z.unknown()),
  metrics: z.record(z.string(), z.number()),
  logs: z.array(z.string()),
});
export type TrajectoryGroup = z.infer<typeof groupSchema>;
