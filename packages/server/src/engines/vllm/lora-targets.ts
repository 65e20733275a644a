import { closeSync, openSync, readSync } from "node:fs";
import { z } from "zod";
import { baseFolder, weightFiles } from "../base-folder.ts";

/** Longer headers are no safetensors'. @unit bytes */
const maxHeaderBytes = 100 * 1024 * 1024;
const headerSchema = z.record(z.string(), z.looseObject({ shape: z.array(z.int()).optional() }));

/** Of nearly all families; the last two are vLLM's own names where a base has them joined. */
const usual = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];
const joined = ["gate_up_proj", "qkv_proj"];

/**
 * The names of the matrices in a base's layers, as vLLM's `--lora-target-modules` takes them: everything that policies have
 * weights for, and neither the output head nor embeddings. Where the files of a base are not on this machine yet, those
 * that nearly all bases have.
 *
 * vLLM 0.32 otherwise adapts the output head too. Without a GPU it then takes as many rows for a prompt's logprobs as it
 * samples in that step, and its core dies of a probe that comes beside other requests.
 */
export function loraTargets(base: string): string[] {
  const names = new Set(matricesOf(base).map(({ inLayer }) => inLayer));
  return names.size === 0 ? [...usual, ...joined] : [...names].toSorted();
}

/**
 * About what vLLM allocates for each policy that it samples from at a time; 0 where the files of the base are not on this
 * machine. Experts are left out: whether they have room depends on the model. @unit bytes
 */
export function slotBytes(base: string, rank: number, dtype: "float32" | "bfloat16"): number {
  const rows = matricesOf(base)
    .filter(({ name }) => !name.includes(".experts."))
    .reduce((sum, { sides: [out, into] }) => sum + out + into, 0);
  return rank * rows * (dtype === "float32" ? 4 : 2);
}

interface Matrix {
  name: string;
  inLayer: string;
  sides: readonly [number, number];
}

function matricesOf(base: string): Matrix[] {
  const folder = baseFolder(base);
  return (folder === null ? [] : weightFiles(folder)).flatMap((file) =>
    Object.entries(headerOf(file)).flatMap(([name, { shape = [] }]) => {
      const inLayer = /\.\d+\.(?:.+\.)?(\w+)\.weight$/.exec(name)?.[1];
      const [out, into] = shape;
      if (inLayer === undefined || shape.length !== 2) return [];
      return [{ name, inLayer, sides: [out ?? 0, into ?? 0] as const }];
    }),
  );
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
