import { z } from "zod";

/** The name of an engine that joins, in the server's health and logs. */
export const engineNameSchema = z
  .string()
  .regex(
    /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/,
    "An engine's name has 1 to 40 characters: a-z, 0-9, and - within it.",
  );

/** `POST /v1/engines/tokens` */
export const engineTokenRequestSchema = z.strictObject({
  /** @unit seconds @default 3600 */
  expiresIn: z.int().min(1).max(604_800).default(3_600),
});
export type EngineTokenRequest = z.input<typeof engineTokenRequestSchema>;

export const engineTokenSchema = z.object({
  object: z.literal("hone.engine_token"),
  /** Lets one engine join, once. It is told here and nowhere else. */
  token: z.string(),
  /** @unit ms since 1970 */
  expiresAt: z.int(),
});
export type EngineToken = z.infer<typeof engineTokenSchema>;

export const engineInfoSchema = z.object({
  object: z.literal("hone.engine"),
  name: z.string(),
  /** It joined with a token, so it can be removed; others are the server's own or were given to it by their URL. */
  joined: z.boolean(),
  /** Where the server reaches an engine that joined; null while that is unknown. */
  url: z.string().nullable(),
  /** "loading" and "away" engines take no traffic. */
  state: z.enum(["serving", "loading", "away", "draining"]),
  /** Why it takes no traffic, or which policies it refused. */
  reason: z.string().nullable(),
  /** Of the set of adapters that an engine that joined says it has; null of others. */
  generation: z.int().nullable(),
  /** The policies that it serves. */
  policies: z.array(z.string()),
});
export type EngineInfo = z.infer<typeof engineInfoSchema>;

export const engineListSchema = z.object({
  object: z.literal("list"),
  data: z.array(engineInfoSchema),
});
export type EngineList = z.infer<typeof engineListSchema>;

/** `DELETE /v1/engines/{name}` */
export const removedEngineSchema = z.object({
  object: z.literal("hone.engine"),
  name: z.string(),
  removed: z.literal(true),
});
export type RemovedEngine = z.infer<typeof removedEngineSchema>;
