import { join, resolve } from "node:path";
import type { Quantize } from "../ports/trainer.ts";

export interface WorkerOptions {
  base: string;
  dataDir: string;
  device: "cpu" | "cuda";
  /** @default what the worker finds fit for the base and the device */
  dtype?: "float32" | "bfloat16" | undefined;
  quantize?: Quantize | undefined;
  maxModelLen?: number | undefined;
  kvCacheMib?: number | undefined;
  engineShare?: number | undefined;
  recompute?: "auto" | "on" | "off" | undefined;
  /** Folder or hub id by name. */
  rewardModels?: Readonly<Record<string, string>> | undefined;
  /** Python files, each with an objective of the operator's own. */
  objectives?: readonly string[] | undefined;
}

/** What the worker is started with; one that only trains has no engine. */
export function workerArguments(
  options: WorkerOptions,
  { baseName, hasEngine }: { baseName: string; hasEngine: boolean },
): string[] {
  return [
    ...["--base", options.base, "--served-name", baseName],
    ...["--device", options.device, "--dtype", options.dtype ?? "auto"],
    ...flag("--quantize", options.quantize),
    ...flag("--max-model-len", options.maxModelLen),
    ...flag("--cache-mib", options.kvCacheMib),
    ...flag("--engine-share", options.engineShare),
    ...flag("--recompute", options.recompute),
    // A redone step gives the same bits with the same number of threads.
    ...["--threads-file", join(resolve(options.dataDir), "threads.json")],
    ...Object.entries(options.rewardModels ?? {}).flatMap(([name, source]) => [
      "--reward-model",
      `${name}=${source}`,
    ]),
    ...(options.objectives ?? []).flatMap((file) => ["--objectives", resolve(file)]),
    ...(hasEngine ? [] : ["--no-engine"]),
  ];
}

/** None where nothing was asked for. */
export function flag(name: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [name, String(value)];
}
