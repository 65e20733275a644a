import { open } from "node:fs/promises";
import { HoneError } from "@hone/core";
import { z } from "zod";
import { NotReadable, openRegular, piecesOf } from "../../store/regular-file.ts";

const mebibyte = 1024 * 1024;
/** Of an `adapter_config.json`, which PEFT writes in a few KiB. */
export const maxConfigBytes = mebibyte;
/** Names, types and places of tensors; some 150 bytes for each. */
const maxHeaderBytes = 4 * mebibyte;

/** How long the files of an adapter may take to be copied: a disk that does not answer ends the operation. */
export const copyDeadlineMs = 10 * 60_000;

export function badAdapter(why: string, cause?: unknown): HoneError {
  return new HoneError(`The adapter cannot be imported: ${why}.`, {
    code: "bad_adapter",
    param: "op.path",
    cause,
  });
}

/** Copies a regular file of at most `maxBytes` and makes the copy durable. Throws `bad_adapter`. */
export async function copyFile(
  from: string,
  to: string,
  options: { name: string; maxBytes: number; signal: AbortSignal },
): Promise<void> {
  const { name, maxBytes, signal } = options;
  try {
    const { handle, bytes } = await openRegular(from);
    try {
      if (bytes > maxBytes) {
        throw badAdapter(
          `its ${name} has ${bytes} bytes, and one for this model at most ${maxBytes}`,
        );
      }
      const target = await open(to, "w");
      try {
        for await (const piece of piecesOf(handle, bytes, signal)) await target.writeFile(piece);
        await target.sync();
      } finally {
        await target.close();
      }
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (cause instanceof NotReadable) throw badAdapter(`its ${name} ${cause.message}`, cause);
    throw cause;
  }
}

const headerSchema = z.record(z.string(), z.unknown());
const tensorSchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().min(0)),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});

/** Whether a safetensors file holds what its header says, before an engine maps it. Throws `bad_adapter`. */
export async function checkWeights(file: string, name: string): Promise<void> {
  const { handle, bytes } = await openRegular(file);
  try {
    const prefix = Buffer.alloc(8);
    const { bytesRead } = await handle.read(prefix, 0, 8, 0);
    const length = bytesRead === 8 ? Number(prefix.readBigUInt64LE()) : Infinity;
    if (length > bytes - 8) throw badAdapter(`its ${name} ends within its header`);
    if (length > maxHeaderBytes) {
      throw badAdapter(
        `the header of its ${name} has ${length} bytes, more than ${maxHeaderBytes}`,
      );
    }
    const header = Buffer.alloc(length);
    await handle.read(header, 0, length, 8);
    let end = 0;
    try {
      const { __metadata__: _, ...tensors } = headerSchema.parse(JSON.parse(header.toString()));
      for (const tensor of Object.values(tensors)) {
        const [begin, until] = tensorSchema.parse(tensor).data_offsets;
        if (begin > until) throw new RangeError("a tensor ends before it begins");
        end = Math.max(end, until);
      }
    } catch (cause) {
      throw badAdapter(`the header of its ${name} is not that of a safetensors file`, cause);
    }
    const held = bytes - 8 - length;
    if (end !== held) {
      throw badAdapter(`its ${name} has ${held} bytes of tensors, and its header says ${end}`);
    }
  } finally {
    await handle.close();
  }
}
