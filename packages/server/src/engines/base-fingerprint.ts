import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { basename } from "node:path";
import { baseFolder, weightFiles } from "./base-folder.ts";

const block = 64 * 1024;
const blocks = 32;

/**
 * Tells bases apart that have one name: SHA-256 over parts of the weights' files, which takes no longer for a large
 * base. Weights that were trained on differ everywhere, so parts are enough; it is no proof against someone who wants
 * two bases to look alike. Null where this machine has no safetensors of it, or not all of them yet.
 *
 * @param base a folder or a hub id
 */
export async function baseFingerprint(base: string): Promise<string | null> {
  const folder = baseFolder(base);
  const files = folder === null ? [] : weightFiles(folder);
  if (files.length === 0) return null;
  const hash = createHash("sha256");
  for (const file of files) {
    const handle = await open(file, "r");
    try {
      const { size } = await handle.stat();
      hash.update(`${basename(file)} ${size}\n`);
      const buffer = Buffer.alloc(block);
      for (let at = 0; at < blocks; at++) {
        const position = Math.floor((Math.max(0, size - block) * at) / (blocks - 1));
        const { bytesRead } = await handle.read(buffer, 0, block, position);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await handle.close();
    }
  }
  return hash.digest("hex");
}
