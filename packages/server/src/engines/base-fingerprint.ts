import { createHash } from "node:crypto";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";

const block = 64 * 1024;
const blocks = 32;

/**
 * Tells bases apart that have one name: SHA-256 over parts of the weights' files, which takes no longer for a large
 * base. Weights that were trained on differ everywhere, so parts are enough; it is no proof against someone who wants
 * two bases to look alike. Null where there is no folder with safetensors.
 */
export async function baseFingerprint(folder: string): Promise<string | null> {
  const entries = await readdir(folder).catch(() => [] as string[]);
  const files = entries.filter((name) => name.endsWith(".safetensors")).toSorted();
  if (files.length === 0) return null;
  const hash = createHash("sha256");
  for (const name of files) {
    const handle = await open(join(folder, name), "r");
    try {
      const { size } = await handle.stat();
      hash.update(`${name} ${size}\n`);
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
