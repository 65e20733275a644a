import { z } from "zod";

const optionInForceSchema = z.object({
  /** As the command line calls it, such as `--engine`; `--` is what stands behind it, for vLLM. */
  option: z.string(),
  /** What is in force, in words; null where nothing is. Paths and keys are not told. */
  value: z.string().nullable(),
  /** Whether the operator gave another than the default. */
  given: z.boolean(),
});
export type OptionInForce = z.infer<typeof optionInForceSchema>;

const optionAdviceSchema = z.object({
  /** Those that it is about, the first above all. */
  options: z.array(z.string()).min(1),
  /** Whether something does not work so, or is merely worth a look. */
  verdict: z.enum(["misfit", "hint"]),
  /** What is the case, and what to do. */
  message: z.string(),
});
export type OptionAdvice = z.infer<typeof optionAdviceSchema>;

/** `GET /v1/options` */
export const serverOptionsSchema = z.object({
  object: z.literal("hone.options"),
  /** The server's machine, or its container. */
  machine: z.object({
    cores: z.int(),
    /** @unit bytes */
    memory: z.int(),
    /** @unit bytes */
    freeMemory: z.int(),
    /** Of the data directory's disk; null where the system does not say. @unit bytes */
    freeDisk: z.int().nullable(),
    /** Cards that the server may use, by their memory. */
    cards: z.array(z.object({ total: z.int(), free: z.int() })),
    /** The processor computes in bfloat16. */
    bfloat16: z.boolean(),
  }),
  options: z.array(optionInForceSchema),
  /** What does not fit the machine, or one another. */
  advice: z.array(optionAdviceSchema),
});
export type ServerOptionsInForce = z.infer<typeof serverOptionsSchema>;
