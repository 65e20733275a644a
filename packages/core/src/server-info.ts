import { z } from "zod";

/** The limit of the body of a request. @unit bytes */
export const maxBodyBytes = 8 * 1024 * 1024;

/** `GET /health` */
export const healthSchema = z.object({
  status: z.enum(["ok", "starting", "degraded"]),
  /** The name that the bare base answers to. */
  base: z.string(),
  /** The processes behind the server: renderer, worker, engine. */
  components: z.record(
    z.string(),
    z.looseObject({
      state: z.enum([
        "starting",
        "ready",
        "restarting",
        "failed",
        "stopped",
        "unreachable",
        "fenced",
      ]),
      /** Why an engine is fenced: it gets no requests until it serves what is live. */
      reason: z.string().optional(),
    }),
  ),
});
export type Health = z.infer<typeof healthSchema>;
