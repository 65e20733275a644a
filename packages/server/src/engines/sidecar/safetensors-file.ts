import { open, type FileHandle } from "node:fs/promises";
import { z } from "zod";
import { weightFiles } from "../base-folder.ts";

const headerSchema = z.record(
  z.string(),
  z.object({
    dtype: z.string(),
    shape: z.array(z.int().min(0)),
    data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
  }),
);

export interface StoredTensor {
  name: string;
  dtype: string;
  shape: readonly number[];
  /** In the file. @unit bytes */
  begin: number;
  end: number;
}

const mostHeaderBytes = 64 * 1024 * 1024;

/** The tensors that a safetensors file says it has, in their order in the file. Throws what is wrong with its header. */
export async function tensorsOf(handle: FileHandle): Promise<StoredTensor[]> {
  const { size } = await handle.stat();
  const length = Buffer.alloc(8);
  await handle.read(length, 0, 8, 0);
  const headerBytes = Number(length.readBigUInt64LE(0));
  if (size < 8 || headerBytes > Math.min(size - 8, mostHeaderBytes)) {
    throw new Error("it is no safetensors file, or is cut off");
  }
  const text = Buffer.alloc(headerBytes);
  await handle.read(text, 0, headerBytes, 8);
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(text.toString("utf8")) as Record<string, unknown>;
  } catch {
    throw new Error("its header is not JSON");
  }
  const { __metadata__: _, ...entries } = header;
  const parsed = headerSchema.safeParse(entries);
  if (!parsed.success) throw new Error("its header is not that of a safetensors file");
  const data = 8 + headerBytes;
  const tensors = Object.entries(parsed.data).map(([name, { dtype, shape, data_offsets }]) => ({
    ...{ name, dtype, shape },
    ...{ begin: data + data_offsets[0], end: data + data_offsets[1] },
  }));
  tensors.sort((a, b) => a.begin - b.begin);
  let at = data;
  for (const { name, begin, end } of tensors) {
    if (begin !== at || end < begin) throw new Error(`the place of ${name} in it is wrong`);
    at = end;
  }
  if (at !== size) throw new Error(`it has ${size} bytes, and its tensors end at ${at}`);
  return tensors;
}

/** The shapes of a folder's tensors, by name. Empty where it has no safetensors. */
export async function shapesIn(folder: string): Promise<Map<string, readonly number[]>> {
  const shapes = new Map<string, readonly number[]>();
  for (const file of weightFiles(folder)) {
    const handle = await open(file, "r");
    try {
      for (const tensor of await tensorsOf(handle)) shapes.set(tensor.name, tensor.shape);
    } finally {
      await handle.close();
    }
  }
  return shapes;
}
