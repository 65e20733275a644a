import { closeSync, existsSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** Longer headers are no safetensors'. @unit bytes */
const maxHeaderBytes = 100 * 1024 * 1024;
const headerSchema = z.record(z.string(), z.looseObject({ shape: z.array(z.int()).optional() }));

/**
 * The names of the matrices in a base's layers, as vLLM's `--lora-target-modules` takes them: everything that policies have
 * weights for, and neither the output head nor embeddings. Empty where the base is in no folder of this machine.
 *
 * vLLM 0.32 otherwise adapts the output head too. Without a GPU it then takes as many rows for a prompt's logprobs as it
 * samples in that step, and its core dies of a probe that comes beside other requests.
 */
export function loraTargets(base: string): string[] {
  if (!existsSync(base)) return [];
  const names = new Set<string>();
  for (const file of readdirSync(base).filter((name) => name.endsWith(".safetensors"))) {
    for (const [name, { shape }] of Object.entries(headerOf(join(base, file)))) {
      const inLayer = /\.\d+\.(?:.+\.)?(\w+)\.weight$/.exec(name)?.[1];
      if (inLayer !== undefined && shape?.length === 2) names.add(inLayer);
    }
  }
  return [...names].toSorted();
}

function headerOf(file: string): z.infer<typeof headerSchema> {
  const descriptor = openSync(file, "r");
  try {
    const length = Buffer.alloc(8);
    readSync(descriptor, length, 0, 8, 0);
    const bytes = Number(length.readBigUInt64LE());
    if (bytes > maxHeaderBytes) return {};
    const header = Buffer.alloc(bytes);
    readSync(descriptor, header, 0, bytes, 8);
    return headerSchema.catch({}).parse(JSON.parse(header.toString("utf8")));
  } finally {
    closeSync(descriptor);
  }
}
