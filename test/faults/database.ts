import { createRequire } from "node:module";
import { join } from "node:path";

// The database's own library, and nothing of the server's code: the disk is judged by somebody else.
const require = createRequire(new URL("../../packages/server/package.json", import.meta.url));

export interface ReadDatabase {
  prepare(sql: string): { all(...args: unknown[]): unknown[] };
  close(): void;
}

/** The database of a stopped server. */
export function openDatabase(dataDir: string): ReadDatabase {
  const Database = require("libsql") as new (
    path: string,
    options: { readonly: boolean },
  ) => ReadDatabase;
  return new Database(join(dataDir, "hone.db"), { readonly: true });
}
