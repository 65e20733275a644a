import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { announcedServer, defaultDataDir, makeFolder } from "@hone/transport/node";
import type { AnswerStore, Platform } from "./platform.ts";

let secretOfProcess: string | undefined;

async function installSecret(): Promise<string> {
  const given = process.env["HONE_RULER_SECRET"];
  if (given) return given;
  const path = join(defaultDataDir(), "ruler-secret");
  try {
    const secret = await readSecret(path);
    if (secret) return secret;
    makeFolder(defaultDataDir(), { mode: 0o700 });
    // Of processes that make it at once, one places it, whole, and all read that one.
    const partial = `${path}.${randomBytes(6).toString("hex")}.partial`;
    await writeFile(partial, `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
    try {
      await link(partial, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    } finally {
      await rm(partial, { force: true });
    }
    return (await readSecret(path)) ?? ownSecret();
  } catch {
    // A home that cannot be written: prompts differ between processes, and stay unguessable.
    return ownSecret();
  }
}

function ownSecret(): string {
  secretOfProcess ??= randomBytes(32).toString("hex");
  return secretOfProcess;
}

async function readSecret(path: string): Promise<string | null> {
  try {
    const secret = (await readFile(path, "utf8")).trim();
    return /^[0-9a-f]{64}$/.test(secret) ? secret : null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

function answerStore(folder: string | undefined): AnswerStore {
  const root = folder ?? join(defaultDataDir(), "ruler-cache");
  const pathOf = (key: string): string => join(root, key.slice(0, 2), `${key.slice(2)}.json`);
  return {
    async get(key) {
      return await readFile(pathOf(key), "utf8").catch(() => null);
    },
    async set(key, value) {
      const path = pathOf(key);
      const partial = `${path}.${randomBytes(6).toString("hex")}.partial`;
      // Answers quote trajectories: only their owner may read them.
      makeFolder(dirname(path), { mode: 0o700 });
      try {
        await writeFile(partial, value, { mode: 0o600 });
        await rename(partial, path);
      } catch (error) {
        await rm(partial, { force: true });
        throw error;
      }
    },
  };
}

export const platform: Platform = {
  environment: (name) => process.env[name] || undefined,
  installSecret,
  honeServer: () => ({ environment: process.env, announced: announcedServer(defaultDataDir()) }),
  answerStore,
};
