import { chmodSync, closeSync, openSync } from "node:fs";

/**
 * Makes a database's file, if it is not there, for its owner's eyes only, also in a folder that others can read.
 * SQLite gives the files beside it (`-wal`, `-shm`) the same mode; those of an older Hone are taken in too.
 */
export function ownOnly(path: string): void {
  closeSync(openSync(path, "a", 0o600));
  for (const file of [path, `${path}-wal`, `${path}-shm`]) {
    try {
      chmodSync(file, 0o600);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // It does not exist, or belongs to another user, who then decides.
      if (code !== "ENOENT" && code !== "EPERM") throw error;
    }
  }
}
