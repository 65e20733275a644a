import { open, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { z } from "zod";
import { adapterConfigName, adapterName } from "../../ports/live-set.ts";
import { sha256OfFile } from "../../store/files.ts";
import type { WantedFiles } from "../joined/wire.ts";
import { tensorsOf, type StoredTensor } from "./safetensors-file.ts";

/** The bits of an exponent that are all ones in infinities and NaN, in the words of each type. */
const exponents: Readonly<Record<string, { bytes: 2 | 4; mask: number }>> = {
  F32: { bytes: 4, mask: 0x7f80_0000 },
  BF16: { bytes: 2, mask: 0x7f80 },
  F16: { bytes: 2, mask: 0x7c00 },
};

const configSchema = z.object({
  peft_type: z.literal("LORA"),
  r: z.int().min(1),
  rank_pattern: z.record(z.string(), z.unknown()).nullish(),
});

/**
 * Looks at an adapter's files before an engine does: engines compute with what they are given. The weights have the
 * digest that the server named, the rank that it named and that the engine has room for, shapes that fit the base,
 * and are finite. Throws `bad_adapter` with what is wrong.
 */
export async function checkAdapter(
  folder: string,
  wanted: WantedFiles,
  limits: {
    maxRank: number | null;
    /** Of the base's tensors, by name. Names that are not there are not compared. */
    baseShapes: ReadonlyMap<string, readonly number[]>;
  },
): Promise<void> {
  const file = join(folder, adapterName);
  const { size } = await stat(file);
  if (size !== wanted.bytes) {
    throw badAdapter(`its weights have ${size} bytes, not ${wanted.bytes}`);
  }
  const digest = await sha256OfFile(file);
  if (digest !== wanted.sha256) {
    throw badAdapter(
      `its weights are not those that the server named: their SHA-256 is ${digest}, not ${wanted.sha256}`,
    );
  }
  checkConfig(wanted);
  if (limits.maxRank !== null && wanted.rank > limits.maxRank) {
    throw badAdapter(
      `its rank is ${wanted.rank}, and the engine takes up to ${limits.maxRank}. Start it with --max-lora-rank ${wanted.rank}`,
    );
  }
  const handle = await open(file, "r");
  try {
    const tensors = await tensorsOf(handle).catch((error: unknown) => {
      throw badAdapter((error as Error).message);
    });
    if (tensors.length === 0) throw badAdapter("it has no weights");
    for (const tensor of tensors) checkShape(tensor, wanted.rank, limits.baseShapes);
    for (const tensor of tensors) await checkFinite(handle, tensor);
  } finally {
    await handle.close();
  }
}

function checkConfig({ config, rank }: WantedFiles): void {
  let value: unknown;
  try {
    value = JSON.parse(config);
  } catch {
    throw badAdapter(`its ${adapterConfigName} is not JSON`);
  }
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) throw badAdapter(`its ${adapterConfigName} is not that of a LoRA adapter`);
  const { r, rank_pattern } = parsed.data;
  if (Object.keys(rank_pattern ?? {}).length > 0) {
    throw badAdapter("its layers have different ranks");
  }
  if (r !== rank) throw badAdapter(`its ${adapterConfigName} says rank ${r}, the server ${rank}`);
}

function checkShape(
  { name, dtype, shape, begin, end }: StoredTensor,
  rank: number,
  baseShapes: ReadonlyMap<string, readonly number[]>,
): void {
  const type = exponents[dtype];
  if (!type) throw badAdapter(`${name} is of the type ${dtype}, not F32, BF16 or F16`);
  if (shape.reduce((product, one) => product * one, type.bytes) !== end - begin) {
    throw badAdapter(`${name} has ${end - begin} bytes, which is not what its shape needs`);
  }
  const found = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(name);
  const [rows, columns] = shape;
  if (!found || shape.length !== 2) throw badAdapter(`${name} is no part of a LoRA adapter`);
  const isA = found[2] === "A";
  const own = isA ? rows : columns;
  if (own !== rank) throw badAdapter(`${name} has rank ${own}, not ${rank}`);
  const base = baseShapes.get(`${found[1]}.weight`);
  const fits = base?.[isA ? 1 : 0];
  const width = isA ? columns : rows;
  if (fits !== undefined && fits !== width) {
    throw badAdapter(`${name} is for a layer of ${width}, the base's has ${fits}: another base`);
  }
}

const chunkBytes = 4 * 1024 * 1024;

async function checkFinite(handle: FileHandle, tensor: StoredTensor): Promise<void> {
  const { bytes, mask } = exponents[tensor.dtype]!;
  const buffer = new ArrayBuffer(Math.min(chunkBytes, tensor.end - tensor.begin));
  const words = bytes === 4 ? new Uint32Array(buffer) : new Uint16Array(buffer);
  for (let at = tensor.begin; at < tensor.end;) {
    const length = Math.min(buffer.byteLength, tensor.end - at);
    const { bytesRead } = await handle.read(new Uint8Array(buffer), 0, length, at);
    if (bytesRead !== length) throw badAdapter("it is cut off");
    for (let i = 0; i < length / bytes; i++) {
      if ((words[i]! & mask) === mask) throw badAdapter(`${tensor.name} has NaN or infinity in it`);
    }
    at += length;
  }
}

export function badAdapter(message: string, cause?: unknown): HoneError {
  return new HoneError(`${message}.`, { code: "bad_adapter", cause });
}
