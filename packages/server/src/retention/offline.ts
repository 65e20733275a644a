import { existsSync, readFileSync } from "node:fs";
import { rename } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { type GcReport, type gcRequestSchema, HoneError, type Keep, keepSchema } from "@hone/core";
import type { Logger } from "pino";
import { z } from "zod";
import { createCheckpoints } from "../policies/checkpoints.ts";
import { createModels } from "../policies/models.ts";
import { syncFolder, writeSynced } from "../store/files.ts";
import { lockDataDir } from "../store/lock.ts";
import { openStore } from "../store/store.ts";
import { collectGarbage } from "./gc.ts";
import { createRetention, defaultKeep } from "./retention.ts";

const fileName = "retention.json";
const notedSchema = z.object({ keep: keepSchema });

/** Notes what the server was told to keep. A later `gc` without the server must not remove more. */
export async function noteKeep(dataDir: string, keep: Keep): Promise<void> {
  const file = join(dataDir, fileName);
  const content = `${JSON.stringify({ keep })}\n`;
  if (existsSync(file) && readFileSync(file, "utf8") === content) return;
  // The note is replaced as a whole, because a `gc` that cannot read it removes nothing.
  await writeSynced(`${file}.next`, content);
  await rename(`${file}.next`, file);
  await syncFolder(dataDir);
}

/**
 * Null if nothing was noted. A note that cannot be read is an error and not guessed at, because policies would
 * be lost for good.
 */
function notedKeep(dataDir: string): Keep | null {
  const file = join(dataDir, fileName);
  if (!existsSync(file)) return null;
  try {
    return notedSchema.parse(JSON.parse(readFileSync(file, "utf8"))).keep;
  } catch (cause) {
    throw new HoneError(
      `${file} does not say how many policies to keep. Say it with --keep; the next start of the server writes the file anew.`,
      { code: "invalid_config", param: "keep", cause },
    );
  }
}

/** `gc` of a data directory that no server uses. */
export async function collectOffline(
  given: string,
  request: z.output<typeof gcRequestSchema>,
  log: Logger,
): Promise<GcReport> {
  const dataDir = resolve(given);
  if (!existsSync(join(dataDir, "hone.db"))) {
    throw new HoneError(
      `${dataDir} is not a data directory: it has no hone.db. Name one with --data-dir.`,
      {
        code: "invalid_config",
      },
    );
  }
  const lock = lockDataDir(dataDir);
  try {
    const store = await openStore(dataDir, log);
    try {
      const models = createModels(store, Date.now);
      const checkpoints = createCheckpoints(dataDir, randomBytes(6).toString("hex"), log);
      const retention = createRetention({
        store,
        models,
        checkpoints,
        // Deletions that were cut off: the next start of the server goes on with them.
        held: (model) => {
          const rows = store.all(
            `SELECT DISTINCT coalesce(policy_step, step) AS step FROM rollouts
             WHERE status = 'open' AND model = ? AND coalesce(policy_step, step) IS NOT NULL`,
            model,
          ) as { step: number }[];
          return new Set(rows.map(({ step }) => step));
        },
        unload: () => Promise.resolve(),
        keep: request.keep ?? notedKeep(dataDir) ?? defaultKeep,
        log,
      });
      return await collectGarbage(
        { store, models, checkpoints, retention, clock: Date.now, alone: true },
        request,
      );
    } finally {
      await store.close();
    }
  } finally {
    lock.release();
  }
}
