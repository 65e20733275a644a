import { z } from "zod";

export const healthSchema = z.object({
  boot: z.string(),
  progress: z.number(),
  /** "loading" and "compiling" say what a slow start is at. */
  phase: z.enum(["starting", "loading", "compiling", "idle", "decoding", "training"]),
});
export type Health = Pick<z.infer<typeof healthSchema>, "progress" | "phase">;

const answerTimeoutMs = 5_000;

/** Asks the child how far it is. An answer with another boot id comes from a stranger on its port. */
export async function readHealth(
  child: { readonly baseURL: string; readonly key: string; readonly boot: string },
  signal?: AbortSignal,
): Promise<Health> {
  const timeout = AbortSignal.timeout(answerTimeoutMs);
  const response = await fetch(`${child.baseURL}/health`, {
    headers: { authorization: `Bearer ${child.key}` },
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  });
  const health = healthSchema.parse(await response.json());
  if (health.boot !== child.boot) throw new Error("another process answers on the child's port");
  return health;
}
