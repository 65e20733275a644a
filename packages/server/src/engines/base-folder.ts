import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

export function isHubId(base: string): boolean {
  return /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".");
}

/**
 * Where the files of a base are on this machine: the folder itself, or what the hub's library has in its cache of a hub id.
 * Null where there is neither.
 */
export function baseFolder(base: string): string | null {
  if (existsSync(base)) return resolve(base);
  if (!isHubId(base)) return null;
  const kept = join(hubCache(), `models--${base.replaceAll("/", "--")}`);
  try {
    const commit = readFileSync(join(kept, "refs", "main"), "utf8").trim();
    const folder = join(kept, "snapshots", commit);
    return existsSync(join(folder, "config.json")) ? folder : null;
  } catch {
    return null;
  }
}

/** By the rules of the library itself. */
function hubCache(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  const cache = HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(home, "hub");
  return cache.startsWith("~/") ? join(homedir(), cache.slice(2)) : cache;
}

/**
 * The safetensors of a base, sorted: those that its index names, else its one file, else all. Some bases come with the same
 * weights twice, and who downloads one may have taken both. Empty where one of them is not there yet.
 */
export function weightFiles(folder: string): string[] {
  const indexed = indexedFiles(folder);
  const files = indexed ?? (existsSync(join(folder, whole)) ? [whole] : safetensorsIn(folder));
  const paths = files.map((name) => join(folder, name));
  return paths.every((path) => existsSync(path)) ? paths : [];
}

const whole = "model.safetensors";

function indexedFiles(folder: string): string[] | null {
  try {
    const text = readFileSync(join(folder, `${whole}.index.json`), "utf8");
    const { weight_map: files } = indexSchema.parse(JSON.parse(text));
    return [...new Set(Object.values(files))].toSorted();
  } catch {
    return null;
  }
}

function safetensorsIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".safetensors"))
      .toSorted();
  } catch {
    return [];
  }
}
