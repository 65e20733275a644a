import type { Quantize } from "./ports/trainer.ts";

/** What generates, and where. */
export interface EngineOptions {
  /** @default cpu */
  device?: "cpu" | "cuda" | undefined;
  /** @default bfloat16 on cuda, and on a cpu with AVX512-BF16 for a base of 100M parameters or more; else float32 */
  dtype?: "float32" | "bfloat16" | undefined;
  /**
   * Holds the base's linear layers in 4 bits, a quarter of bfloat16's memory: QLoRA. Needs bitsandbytes
   * (`setup --bitsandbytes`) and the embedded engine. @default all of their bits
   */
  quantize?: Quantize | undefined;
  /**
   * What the embedded engine may hold of keys and values: of what it samples now, and of earlier turns.
   * @unit MiB @default a quarter of the machine's or the container's memory, half of what is free of it at most
   */
  kvCacheMib?: number | undefined;
  /**
   * The same as a share of the memory that the base leaves free, from 0.05 to 0.95.
   * @default .5 on cuda; on cpu see `kvCacheMib`
   */
  engineShare?: number | undefined;
  /**
   * By which of several ways parts of the work are computed: `name=way,…`, such as `layer=compiled,attention=flex`. They
   * differ in speed and rounding (docs/gpu.md has them). `decode` is the embedded engine's. @default the device decides
   */
  paths?: string | undefined;
  /** What generates: the worker, vLLM as a child of this server, or engines that join. @default embedded */
  engine?: "embedded" | "vllm" | "joined" | undefined;
  /**
   * Where the embedded engine computes: in the trainer's process, in turn with it, or in its own, while a step trains.
   * The latter is for device "cpu" and two cores or more, and takes the base's memory twice. @default trainer
   */
  engineProcess?: "trainer" | "own" | undefined;
  /** How many vLLMs, each on a card of its own where there are cards. @default 1 */
  replicas?: number | undefined;
  /**
   * vLLM sleeps while a step trains, and leaves its card to the trainer. For one vLLM of this server's on a card; not for
   * runs that play while a step trains. @default false
   */
  sleep?: boolean | undefined;
  /**
   * How many policies old the rollouts may be that runs train on (`maxStaleness` of a step). vLLM, this server's own and
   * such that join, samples from so many policies of a model at a time, and two more. @default 4
   */
  maxStaleness?: number | undefined;
  /** Flags for vLLM besides those that Hone sets. */
  vllmFlags?: readonly string[] | undefined;
  /** vLLM servers that others run, which generate instead of the worker. They see the same disk. */
  engineURL?: string | readonly string[] | undefined;
  /** How many sequences each of them batches: its `--max-num-seqs`. The bound of its requests begins there. @default 256 */
  engineMaxSequences?: number | undefined;
}

/** Whether Hone's own engine samples: none was named, and there is none by URL. */
export function isEmbedded({ engine = "embedded", engineURL = [] }: EngineOptions): boolean {
  return engine === "embedded" && [engineURL].flat().length === 0;
}
