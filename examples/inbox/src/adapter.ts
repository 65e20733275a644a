import type { Model } from "@hone/client";

/**
 * The newest policy's adapter, a folder in the server's data; null before anything was learnt. Asked of the
 * server: the start of the run that trained it may not be this one.
 */
export async function adapterOf(
  model: Model,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string | null> {
  const { learnt } = await model.info(options);
  if (learnt === 0) return null;
  const path = `/v1/models/${model.name}/policies/${learnt}`;
  return await model.transport.json("GET", path, checkpointSchema, options);
}

const checkpointSchema = {
  safeParse(value: unknown) {
    const { checkpoint } = (value ?? {}) as { checkpoint?: unknown };
    return typeof checkpoint === "string" || checkpoint === null
      ? { success: true as const, data: checkpoint }
      : { success: false as const, error: { message: "The policy has no checkpoint." } };
  },
};
