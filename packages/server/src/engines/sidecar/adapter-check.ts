import { createHash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { z } from "zod";
import { adapterConfigName, adapterName } from "../../ports/live-set.ts";
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
  const handle = await open(join(folder, adapterName), "r");
  try {
    const { size } = await handle.stat();
    if (size !== wanted.bytes) {
      throw badAdapter(`its weights have ${size} bytes, not ${wanted.bytes}`);
    }
    const tensors = await tensorsOf(handle).catch((error: unknown) =>
      badAdapter((error as Error).message),
    );
    const isFile = Array.isArray(tensors);
    const { digest, infinite } = await readThrough(handle, size, isFile ? tensors : []);
    // What is said of other weights than those that were named would be of no use.
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
    if (!isFile) throw tensors;
    const [first] = tensors;
    if (!first) throw badAdapter("it has no weights");
    for (const tensor of tensors) {
      checkShape(tensor, wanted.rank, limits.baseShapes, tensor.begin - first.begin);
    }
    if (infinite !== null) throw badAdapter(`${infinite} has NaN or infinity in it`);
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
  /** Of its numbers, from the first tensor's on. @unit bytes */
  offset: number,
): void {
  const type = exponents[dtype];
  if (!type) throw badAdapter(`${name} is of the type ${dtype}, not F32, BF16 or F16`);
  if (offset % type.bytes !== 0) {
    throw badAdapter(`the numbers of ${name} do not begin at a multiple of their size`);
  }
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

/** A multiple of every type's size. */
const chunkBytes = 4 * 1024 * 1024;

/**
 * Reads the file once, in few large pieces: on a busy machine each piece waits its turn. Tells its digest, and the first
 * tensor with a number that is not finite.
 */
async function readThrough(
  handle: FileHandle,
  size: number,
  tensors: readonly StoredTensor[],
): Promise<{ digest: string; infinite: string | null }> {
  const hash = createHash("sha256");
  const buffer = new ArrayBuffer(chunkBytes);
  const data = tensors[0]?.begin ?? 0;
  let infinite: string | null = null;
  for (let at = 0; at < size;) {
    // The pieces of the data begin where its first tensor does, so that numbers are whole in them.
    const length = Math.min(chunkBytes, (at < data ? data : size) - at);
    const piece = new Uint8Array(buffer, 0, length);
    const { bytesRead } = await handle.read(piece, 0, length, at);
    if (bytesRead !== length) throw badAdapter("it is cut off");
    hash.update(piece);
    for (const tensor of tensors) {
      const [begin, end] = [Math.max(tensor.begin, at), Math.min(tensor.end, at + length)];
      if (infinite !== null || begin >= end) continue;
      if (hasInfinite(piece.subarray(begin - at, end - at), tensor.dtype)) infinite = tensor.name;
    }
    at += length;
  }
  return { digest: hash.digest("hex"), infinite };
}

/** Whether one of these numbers is not finite. */
function hasInfinite(part: Uint8Array, dtype: string): boolean {
  const type = exponents[dtype];
  // One of another type, or at another place, is refused for that.
  if (!type || part.byteOffset % type.bytes !== 0) return false;
  const { bytes, mask } = type;
  const count = Math.floor(part.byteLength / bytes);
  const Words = bytes === 4 ? Uint32Array : Uint16Array;
  const words = new Words(part.buffer as ArrayBuffer, part.byteOffset, count);
  for (let i = 0; i < count; i++) if ((words[i]! & mask) === mask) return true;
  return false;
}

export function badAdapter(message: string, cause?: unknown): HoneError {
  return new HoneError(`${message}.`, { code: "bad_adapter", cause });
}
