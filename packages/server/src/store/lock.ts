import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import { ownOnly } from "./own-only.ts";

export interface DataLock {
  release(): void;
}

/**
 * Takes a data directory for the life of this process. The lock is the kernel's (an open exclusive transaction
 * on `lock.db`), so it ends with its holder however that ends, and a pid that another process has meanwhile
 * does no harm. `lock.pid` only serves the message.
 */
export function lockDataDir(dataDir: string): DataLock {
  const pidFile = join(dataDir, "lock.pid");
  const file = join(dataDir, "lock.db");
  ownOnly(file);
  const database = new Database(file);
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    throw new HoneError(
      `Another Hone server (${holder(pidFile)}) uses the data directory ${dataDir}. ` +
        "Stop it, or start this one with another data directory.",
      { code: "invalid_config", cause },
    );
  }
  writeFileSync(pidFile, `${process.pid}\n`);
  return { release: () => database.close() };
}

function holder(pidFile: string): string {
  try {
    return `pid ${readFileSync(pidFile, "utf8").trim()}`;
  } catch {
    return "pid unknown";
  }
}
