import { rename } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { sha256Schema } from "../../ports/live-set.ts";
import { syncFolder, writeSynced } from "../../store/files.ts";
import { readStateFile } from "../../store/state-file.ts";

const fileSchema = z.strictObject({
  version: z.literal(1),
  /** Digests by the URL of the bucket and the prefix below it. */
  objects: z.record(z.string(), z.array(sha256Schema)),
});

const advice = "a server wrote. Move it away: what it names then stays in the bucket.";

/** What this server has put into buckets and not removed, in `bucket.json`: it removes nothing else from them. */
export interface BucketRecord {
  digests(): string[];
  /** Resolves once it is on the disk: before the object is in the bucket. */
  add(sha256: string): Promise<void>;
  remove(sha256: string): Promise<void>;
  /** Objects in other buckets, which nobody removes as long as this one is given. */
  elsewhere(): { place: string; objects: number }[];
}

/** @param place the URL of the bucket and the prefix below it */
export function openBucketRecord(dataDir: string, place: string): BucketRecord {
  const file = join(dataDir, "bucket.json");
  const objects = new Map(
    Object.entries(readStateFile(file, fileSchema, advice)?.objects ?? {}).map(([at, all]) => [
      at,
      new Set(all),
    ]),
  );
  const here = objects.get(place) ?? new Set<string>();
  objects.set(place, here);
  let writing: Promise<void> = Promise.resolve();

  function write(): Promise<void> {
    writing = writing
      .catch(() => undefined)
      .then(async () => {
        const all = [...objects].filter(([, digests]) => digests.size > 0);
        const state = {
          version: 1,
          objects: Object.fromEntries(all.map(([at, of]) => [at, [...of]])),
        };
        await writeSynced(`${file}.next`, `${JSON.stringify(state, null, 2)}\n`);
        await rename(`${file}.next`, file);
        await syncFolder(dataDir);
      });
    return writing;
  }

  return {
    digests: () => [...here],
    async add(sha256) {
      if (here.has(sha256)) return;
      here.add(sha256);
      await write();
    },
    async remove(sha256) {
      if (here.delete(sha256)) await write();
    },
    elsewhere: () =>
      [...objects]
        .filter(([at, digests]) => at !== place && digests.size > 0)
        .map(([at, digests]) => ({ place: at, objects: digests.size })),
  };
}
