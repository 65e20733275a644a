import { rmSync, writeFileSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { engineNameSchema } from "@hone/core";
import { z } from "zod";
import { syncFolder } from "../../store/files.ts";
import { readStateFile } from "../../store/state-file.ts";

const identitySchema = z.strictObject({
  version: z.literal(1),
  /** The server that the key is of, without a slash at the end. */
  server: z.string(),
  /** Null while it is joining: the server may know the key, or not yet. */
  name: engineNameSchema.nullable(),
  key: z.string().min(22),
});
export type Identity = Omit<z.infer<typeof identitySchema>, "version">;

const fileName = "engine.json";

/** What an engine was called and given when it joined; null where it did not join from this folder yet. */
export function readIdentity(dataDir: string): Identity | null {
  const file = join(dataDir, fileName);
  const advice = "an engine wrote. Delete it, then join with a new token.";
  const found = readStateFile(file, identitySchema, advice);
  if (!found) return null;
  const { version: _, ...identity } = found;
  return identity;
}

/** For the owner's eyes only; there is never half a file. */
export async function writeIdentity(dataDir: string, identity: Identity): Promise<void> {
  const file = join(dataDir, fileName);
  rmSync(`${file}.next`, { force: true });
  const text = `${JSON.stringify({ version: 1, ...identity }, null, 2)}\n`;
  writeFileSync(`${file}.next`, text, { flag: "wx", mode: 0o600, flush: true });
  await rename(`${file}.next`, file);
  await syncFolder(dataDir);
}

export function forgetIdentity(dataDir: string): void {
  rmSync(join(dataDir, fileName), { force: true });
}
