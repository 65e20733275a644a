import { createHash, randomUUID } from "node:crypto";
import {
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { basename, join } from "node:path";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { diskFullError, makeFolder } from "../../store/files.ts";
import { adapterConfigName, adapterName } from "../../ports/live-set.ts";
import type { BucketMiss } from "../bucket/bucket-miss.ts";
import type { WantedFiles } from "../joined/wire.ts";
import { badAdapter } from "./adapter-check.ts";

/** Adapters on this disk, by what they hold. */
export interface AdapterCache {
  /** The adapter's folder, whole and checked; it is fetched where it is missing. */
  folderOf(wanted: WantedFiles): Promise<string>;
  /** The same, looked at anew: the disk may have damaged it since. */
  lookAgain(wanted: WantedFiles): Promise<string>;
  /** The digest of the weights in one of these folders; null for any other folder. */
  digestOf(folder: string): string | null;
  /** Removes what was used longest ago, down to the limit, but not what is wanted. */
  trim(wanted: readonly WantedFiles[]): Promise<void>;
}

const staging = ".staging-";

/** Makes the folder, and removes what an earlier end left half written. */
export async function openAdapterCache(options: {
  folder: string;
  /** @unit bytes */
  maxBytes: number;
  /** The weights with this digest, as the server sends them. It hears why they did not come from its bucket. */
  fetch: (sha256: string, missed: BucketMiss | null) => Promise<AsyncIterable<Uint8Array>>;
  /** Writes the weights from the server's bucket into the file. Null where it did, else why not; then there is no file. */
  fromBucket?: (wanted: WantedFiles, file: string) => Promise<BucketMiss | null>;
  /** Throws what is wrong with the files in a folder. */
  check: (folder: string, wanted: WantedFiles) => Promise<void>;
  log: Logger;
}): Promise<AdapterCache> {
  const { folder, check, log } = options;
  await makeFolder(folder);
  for (const name of await readdir(folder)) {
    if (name.startsWith(staging)) await rm(join(folder, name), { recursive: true, force: true });
  }
  /** What this process has looked at, or is about to. */
  const checked = new Map<string, Promise<string>>();

  /** One adapter's weights may be there with several configurations, which make other policies of them. */
  function placeOf({ sha256, config }: WantedFiles): string {
    const ofConfig = createHash("sha256").update(config).digest("hex").slice(0, 16);
    return join(folder, `${sha256}-${ofConfig}`);
  }

  async function find(wanted: WantedFiles, place: string): Promise<string> {
    const config = await readFile(join(place, adapterConfigName), "utf8").catch(() => null);
    if (config !== null) {
      try {
        if (config !== wanted.config) throw badAdapter(`its ${adapterConfigName} was changed`);
        await check(place, wanted);
        return place;
      } catch (error) {
        log.warn({ policy: wanted.policy, err: error }, "a kept adapter is damaged: fetching it");
      }
    }
    const isThere = await stat(place).catch(() => null);
    if (isThere) await rm(place, { recursive: true, force: true });
    return await bring(wanted, place);
  }

  async function bring(wanted: WantedFiles, place: string): Promise<string> {
    const made = join(folder, `${staging}${randomUUID()}`);
    const began = performance.now();
    try {
      await mkdir(made, { mode: 0o700 });
      const file = join(made, adapterName);
      const bucket = wanted.inBucket ? options.fromBucket : undefined;
      const missed = (await bucket?.(wanted, file)) ?? null;
      if (!bucket || missed !== null) {
        await receive(await options.fetch(wanted.sha256, missed), file, wanted.bytes);
      }
      // Nothing is synced: what a crash of the machine leaves half written is found by its digest, and fetched again.
      await writeFile(join(made, adapterConfigName), wanted.config, { mode: 0o600 });
      const tookMs = Math.round(performance.now() - began);
      log.debug({ policy: wanted.policy, tookMs }, "the adapter has arrived");
      await check(made, wanted);
      await rename(made, place);
      return place;
    } catch (error) {
      await rm(made, { recursive: true, force: true });
      throw diskFullError(error) ?? error;
    }
  }

  async function folderOf(wanted: WantedFiles): Promise<string> {
    const place = placeOf(wanted);
    let found = checked.get(place);
    if (!found) {
      found = find(wanted, place);
      checked.set(place, found);
      // What failed may come whole the next time.
      found.catch(() => checked.delete(place));
    }
    await found;
    const now = new Date();
    await utimes(place, now, now).catch(() => undefined);
    return place;
  }

  return {
    folderOf,
    lookAgain(wanted) {
      checked.delete(placeOf(wanted));
      return folderOf(wanted);
    },

    digestOf(path) {
      const digest = /^([0-9a-f]{64})-[0-9a-f]{16}$/.exec(basename(path))?.[1];
      return digest !== undefined && path === join(folder, basename(path)) ? digest : null;
    },

    async trim(wanted) {
      const needed = new Set(wanted.map(placeOf));
      const entries: { place: string; bytes: number; usedAt: number }[] = [];
      for (const name of await readdir(folder)) {
        const place = join(folder, name);
        if (name.startsWith(staging)) continue;
        const { size } = await stat(join(place, adapterName)).catch(() => ({ size: 0 }));
        const { mtimeMs } = await stat(place).catch(() => ({ mtimeMs: 0 }));
        entries.push({ place, bytes: size, usedAt: mtimeMs });
      }
      let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
      for (const { place, bytes } of entries.toSorted((a, b) => a.usedAt - b.usedAt)) {
        if (total <= options.maxBytes) return;
        if (needed.has(place)) continue;
        checked.delete(place);
        await rm(place, { recursive: true, force: true });
        total -= bytes;
      }
    },
  };
}

/** On a busy machine each write waits its turn. */
const writeBytes = 4 * 1024 * 1024;

/** Writes what comes, no more than is due. */
export async function receive(
  stream: AsyncIterable<Uint8Array>,
  file: string,
  bytes: number,
): Promise<void> {
  const handle = await open(file, "wx", 0o600);
  try {
    let received = 0;
    let parts: Uint8Array[] = [];
    let gathered = 0;
    const write = async (): Promise<void> => {
      if (gathered > 0) await handle.writev(parts);
      parts = [];
      gathered = 0;
    };
    for await (const part of stream) {
      received += part.byteLength;
      if (received > bytes) throw badAdapter(`more than its ${bytes} bytes came`);
      parts.push(part);
      gathered += part.byteLength;
      if (gathered >= writeBytes) await write();
    }
    await write();
  } catch (error) {
    if (HoneError.isInstance(error) || diskFullError(error)) throw error;
    // The way here is at fault, not the adapter: it may arrive the next time.
    throw new HoneError(`Its weights did not arrive (${(error as Error).message}).`, {
      ...{ code: "connection_failed", cause: error },
    });
  } finally {
    await handle.close();
  }
}
