import { basename } from "node:path";
import type { Quantize } from "./ports/trainer.ts";
import type { RendererInfo } from "./ports/renderer.ts";
import type { WorkerMemory } from "./trainer/worker-memory.ts";

/** What was taken for the base, by what it is and by the operator's options. */
export interface ServedBase {
  name: string;
  dtype: "float32" | "bfloat16";
  quantize?: Quantize | undefined;
  device: "cpu" | "cuda";
  renderer: RendererInfo;
  /** What the parts of the worker got of it. */
  memory?: WorkerMemory;
}

/** What was taken for the base, as the renderer's component tells it. */
export function summaryOf({ renderer, memory, quantize }: ServedBase): Record<string, unknown> {
  const { name, bridges, tools, plainTexts } = renderer;
  const dtype = memory && { dtype: memory.dtype };
  return { name, bridges, tools, plainTexts, ...dtype, ...(quantize && { quantize }) };
}

/** The base's name: the hub id, or the name of the folder. */
export function baseNameOf(base: string): string {
  return /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".") ? base : basename(base);
}
