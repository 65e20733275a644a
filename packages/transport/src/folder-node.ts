import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { HoneError } from "@hone/core";

export interface FolderOptions {
  /** Of each folder that is made. */
  mode?: number | undefined;
  /** What messages call it. @default "folder" */
  what?: string | undefined;
  /** The option that names it. */
  param?: string | undefined;
}

/**
 * Makes a folder that a user named, with its missing parents; one that is there stays as it is. Throws
 * `invalid_config` where that is not possible. Node's own recursive `mkdir` tries for ever where root may write and
 * the system lets nobody make anything, such as in /proc.
 */
export function makeFolder(folder: string, options: FolderOptions = {}): void {
  const { mode, what = "folder", param } = options;
  try {
    makeWithParents(resolve(folder), mode);
  } catch (cause) {
    throw new HoneError(
      `The ${what} ${folder} cannot be made (${(cause as Error).message}). Name another one.`,
      { code: "invalid_config", param, cause },
    );
  }
}

function makeWithParents(folder: string, mode: number | undefined): void {
  if (isFolder(folder)) return;
  const parent = dirname(folder);
  if (parent !== folder) makeWithParents(parent, mode);
  try {
    mkdirSync(folder, mode);
  } catch (error) {
    // Somebody else may have made it meanwhile.
    if (!isFolder(folder)) throw error;
  }
}

function isFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}
