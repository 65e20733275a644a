import { readdir, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { HoneError, policyName } from "@hone/core";
import type { Logger } from "pino";
import { z } from "zod";
import { fault } from "../faults/fault.ts";
import {
  adapterConfigName,
  adapterName,
  headName,
  type LiveAdapter,
  probeSchema,
} from "../ports/live-set.ts";
import { makeFolder, sha256OfFile, syncFolder, writeSynced } from "../store/files.ts";

const manifestName = "manifest.json";
const optimizerName = "optimizer.safetensors";
/** What an engine loads. */
const engineFiles = [adapterConfigName, adapterName];

const manifestSchema = z.object({
  version: z.literal(1),
  model: z.string(),
  step: z.int().min(0),
  /** The step it was trained from; null for policy 0. */
  parent: z.int().nullable(),
  operationId: z.string(),
  base: z.string(),
  /** The type that the base computed in, and in how many bits it was held if not all. Absent in older ones. */
  precision: z.object({ dtype: z.string(), quantize: z.literal("nf4").optional() }).optional(),
  lora: z.object({ r: z.int(), alpha: z.number() }),
  seed: z.int(),
  /** What it was trained for; of the operator's own objectives also the hash of the file. */
  objective: z
    .object({ type: z.string(), name: z.string().optional(), sha256: z.string().optional() })
    .optional(),
  /** The policy that a step of `distill` learnt from; its hash is of the adapter. */
  teacher: z.object({ model: z.string(), step: z.int(), sha256: z.string() }).optional(),
  cursor: z.unknown(),
  /** What the trainer measured, so that a commit can be completed from the folder alone. */
  metrics: z.record(z.string(), z.number().nullable()),
  /** What an engine has to answer with it. Absent in older ones. */
  probe: probeSchema.optional(),
  files: z.record(z.string(), z.object({ sha256: z.string(), bytes: z.int() })),
});
/** Describes a checkpoint. It is written last, so if it is there, every file beside it is whole. */
export type Manifest = z.infer<typeof manifestSchema>;

/** Where a policy's folder is, in words that do not depend on this machine. */
export function checkpointName(model: string, step: number): string {
  return `models/${model}/policies/${step}`;
}

/** The adapter files of `models/<name>/policies/<N>/`. */
export interface Checkpoints {
  path(model: string, step: number): string;
  /** A new empty folder of this boot, for one try of one operation. */
  stage(model: string, operationId: string, nth: number): Promise<string>;
  /** Staging → manifest → rename → fsync. The database has to follow. */
  commit(
    staging: string,
    manifest: Omit<Manifest, "version" | "files">,
    files: readonly string[],
  ): Promise<void>;
  /** Null if there is no folder, or no manifest in it that can be read. */
  readManifest(model: string, step: number): Promise<Manifest | null>;
  /** Compares every file with its SHA-256. Throws `bad_adapter`. */
  verify(model: string, step: number): Promise<void>;
  /** The same of the files that scores are made with: adapter and head. */
  verifyScoring(model: string, step: number): Promise<void>;
  /**
   * What engines have to serve as this policy, by its manifest. The files that they load are compared with their
   * SHA-256 before. Throws `bad_adapter`.
   */
  adapter(model: string, step: number): Promise<LiveAdapter>;
  remove(model: string, step: number): Promise<void>;
  /** Removes the model's folder with everything in it. */
  removeModel(model: string): Promise<void>;
  /** Bytes of the optimizer's file, which is needed only to train on from this policy. 0 if it has none. */
  optimizerBytes(model: string, step: number): Promise<number>;
  dropOptimizer(model: string, step: number): Promise<void>;
  /** Bytes of the weights that an engine loads. 0 if there are none. */
  adapterBytes(model: string, step: number): Promise<number>;
  /** Bytes of a policy's folder; 0 where there is none. */
  size(model: string, step: number): Promise<number>;
  /** The steps that have a folder, whole or not. */
  folders(model: string): Promise<number[]>;
  discard(staging: string): Promise<void>;
  /** Removes staging folders of earlier boots. Their operations are redone in new ones. */
  orphanedStaging(): Promise<{ path: string; bytes: number }[]>;
  sweepStaging(): Promise<void>;
  /** Throws `disk_full`, before anything is written, if the disk has no room for a checkpoint. */
  requireSpace(model: string, step: number): Promise<void>;
}

export function createCheckpoints(dataDir: string, bootId: string, log: Logger): Checkpoints {
  const models = join(dataDir, "models");
  const folder = (model: string): string => join(models, model, "policies");
  const path = (model: string, step: number): string => join(folder(model), String(step));

  const bytesOf = async (file: string): Promise<number> =>
    (await stat(file).catch(() => null))?.size ?? 0;

  async function readManifest(model: string, step: number): Promise<Manifest | null> {
    try {
      const text = await readFile(join(path(model, step), manifestName), "utf8");
      return manifestSchema.parse(JSON.parse(text));
    } catch {
      return null;
    }
  }

  async function requireManifest(model: string, step: number): Promise<Manifest> {
    const manifest = await readManifest(model, step);
    if (manifest) return manifest;
    throw damaged(model, step, "its manifest is missing or cannot be read");
  }

  async function requireWhole(
    model: string,
    step: number,
    files: Manifest["files"],
    names: readonly string[],
  ): Promise<void> {
    const looked = Object.entries(files).filter(([name]) => names.includes(name));
    const damage = await damageOf(path(model, step), Object.fromEntries(looked));
    if (damage !== null) throw damaged(model, step, damage);
  }

  async function stagingOfOthers(): Promise<string[]> {
    const found: string[] = [];
    for (const model of await readdir(models).catch(() => [] as string[])) {
      const staging = join(models, model, "staging");
      for (const entry of await readdir(staging).catch(() => [] as string[])) {
        if (!entry.startsWith(`${bootId}-`)) found.push(join(staging, entry));
      }
    }
    return found;
  }

  return {
    path,
    readManifest,

    async stage(model, operationId, nth) {
      const staging = join(models, model, "staging", `${bootId}-${operationId}-${nth}`);
      await rm(staging, { recursive: true, force: true });
      await makeFolder(staging);
      return staging;
    },

    async commit(staging, given, files) {
      const entries: Manifest["files"] = {};
      for (const name of [...files].sort()) {
        const file = join(staging, name);
        const found = await stat(file).catch(() => null);
        // A name with a separator would reach out of the folder that is renamed.
        if (name !== file.slice(staging.length + 1) || /[/\\]/.test(name) || !found?.isFile()) {
          throw new HoneError(`The worker reported the file "${name}" but did not write it.`, {
            code: "train_failed",
          });
        }
        entries[name] = { sha256: await sha256OfFile(file), bytes: found.size };
      }
      const manifest: Manifest = { version: 1, ...given, files: entries };
      fault("checkpoint.before-manifest");
      await writeSynced(join(staging, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
      fault("checkpoint.after-manifest");
      await syncFolder(staging);
      await makeFolder(folder(given.model));
      fault("checkpoint.before-rename");
      await rename(staging, path(given.model, given.step));
      fault("checkpoint.after-rename");
      await syncFolder(folder(given.model));
    },

    async verify(model, step) {
      // Retention may drop the optimizer's file meanwhile. The manifest is without it then, and is read once more.
      for (let look = 1; ; look++) {
        const { files } = await requireManifest(model, step);
        const damage = await damageOf(path(model, step), files);
        if (damage === null) return;
        if (look === 2) throw damaged(model, step, damage);
      }
    },

    async verifyScoring(model, step) {
      const { files } = await requireManifest(model, step);
      await requireWhole(model, step, files, [...engineFiles, headName]);
    },

    async adapter(model, step) {
      const { files, lora, probe } = await requireManifest(model, step);
      const weights = files[adapterName];
      if (!weights) throw damaged(model, step, `its manifest does not name ${adapterName}`);
      await requireWhole(model, step, files, engineFiles);
      return {
        ...{ policy: policyName(model, step), path: path(model, step) },
        ...{ ...weights, rank: lora.r, probe },
      };
    },

    async remove(model, step) {
      await rm(path(model, step), { recursive: true, force: true });
      await syncFolder(folder(model)).catch(() => undefined);
    },

    async removeModel(model) {
      await rm(join(models, model), { recursive: true, force: true });
      await syncFolder(models);
    },

    optimizerBytes: (model, step) => bytesOf(join(path(model, step), optimizerName)),
    adapterBytes: (model, step) => bytesOf(join(path(model, step), adapterName)),

    // The manifest goes first: a file that it does not name is never read, and the next pass removes it.
    async dropOptimizer(model, step) {
      const manifest = await readManifest(model, step);
      if (!manifest) return;
      if (optimizerName in manifest.files) {
        const { [optimizerName]: _, ...files } = manifest.files;
        const next = join(path(model, step), `${manifestName}.next`);
        await writeSynced(next, `${JSON.stringify({ ...manifest, files }, null, 2)}\n`);
        await rename(next, join(path(model, step), manifestName));
        await syncFolder(path(model, step));
        fault("retention.after-manifest");
      }
      await rm(join(path(model, step), optimizerName), { force: true });
    },

    size: (model, step) => sizeOf(path(model, step)),

    async folders(model) {
      const entries = await readdir(folder(model)).catch(() => [] as string[]);
      return entries.filter((name) => /^\d+$/.test(name)).map(Number);
    },

    discard: (staging) => rm(staging, { recursive: true, force: true }),

    async orphanedStaging() {
      const found = [];
      for (const staging of await stagingOfOthers()) {
        found.push({ path: staging, bytes: await sizeOf(staging) });
      }
      return found;
    },

    async sweepStaging() {
      for (const staging of await stagingOfOthers()) {
        log.info({ staging }, "removing the staging folder of an earlier boot");
        await rm(staging, { recursive: true, force: true });
      }
    },

    async requireSpace(model, step) {
      const manifest = await readManifest(model, step);
      const adapter = manifest?.files[adapterName]?.bytes ?? 0;
      // An adapter and its two optimizer moments, and as much again as a reserve.
      const needed = adapter * 3 * 2 + 1024 * 1024;
      const { bavail, bsize } = await statfs(models);
      if (bavail * bsize >= needed) return;
      throw new HoneError(
        `A checkpoint needs ${Math.ceil(needed / 2 ** 20)} MiB free; the data directory's disk has ` +
          `${Math.floor((bavail * bsize) / 2 ** 20)} MiB. Free some space, then train again.`,
        { code: "disk_full" },
      );
    },
  };
}

/** What is wrong with the files. Null if nothing is. */
async function damageOf(folder: string, files: Manifest["files"]): Promise<string | null> {
  for (const [name, { sha256 }] of Object.entries(files)) {
    const actual = await sha256OfFile(join(folder, name)).catch(() => null);
    if (actual === null) return `${name} is missing`;
    if (actual !== sha256) return `${name} is not what was written`;
  }
  return null;
}

async function sizeOf(folder: string): Promise<number> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const files = await Promise.all(names.map((name) => stat(join(folder, name)).catch(() => null)));
  return files.reduce((total, file) => total + (file?.size ?? 0), 0);
}

function damaged(model: string, step: number, why: string): HoneError {
  return new HoneError(
    `The checkpoint of ${model}@${step} is damaged: ${why}. Restore the folder from a copy, or use another policy.`,
    { code: "bad_adapter" },
  );
}
