import { z } from "zod";

/** Bytes, as they were when the worker started. */
const memorySchema = z.object({
  /** Of the base, which the worker chooses where it is not told. */
  dtype: z.enum(["float32", "bfloat16"]),
  base: z.number(),
  /** 0 where the worker does not generate. */
  kv_cache: z.number(),
  /** For the activations of one micro-batch. */
  trainer: z.number(),
  /** What a step of an adapter of the usual shape takes besides the base. 0 where no engine shares the card. */
  step: z.number(),
});
export type WorkerMemory = z.infer<typeof memorySchema>;

const answerTimeoutMs = 10_000;

export async function readWorkerMemory(baseURL: string, key: string): Promise<WorkerMemory> {
  const response = await fetch(`${baseURL}/memory`, {
    headers: { authorization: `Bearer ${key}` },
    signal: AbortSignal.timeout(answerTimeoutMs),
  });
  return memorySchema.parse(await response.json());
}
