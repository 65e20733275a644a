import { join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import AsyncDatabase from "libsql/promise";
import { migrations } from "./schema.ts";

export type SqlValue = string | number | null | Uint8Array;

export interface Statement {
  sql: string;
  args: readonly SqlValue[];
}

/**
 * The server's SQLite file. Writes go through one queue: those that wait together share a transaction,
 * and its commit (the fsync) runs off the main thread. Reads see what was committed.
 */
export interface Store {
  /** All of the statements or none; resolves when they are on disk. Writes keep the order of the calls. */
  write(statements: readonly Statement[]): Promise<void>;
  /** Resolves when every write that was queued before has ended. */
  flush(): Promise<void>;
  /** Rows as the schema has them; the caller names their type. */
  all(sql: string, ...args: SqlValue[]): unknown[];
  get(sql: string, ...args: SqlValue[]): unknown;
  close(): Promise<void>;
}

interface Job {
  statements: readonly Statement[];
  resolve: () => void;
  reject: (error: unknown) => void;
}

// Statements run on the main thread at ~0.1 ms each, so one transaction must not hold too many.
const jobsPerTransaction = 64;
const busyTimeoutMs = 5000;

export async function openStore(dataDir: string): Promise<Store> {
  const path = join(dataDir, "hone.db");
  const writer = new AsyncDatabase(path, { timeout: busyTimeoutMs });
  await writer.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
  await migrate(writer, path);
  const reader = new Database(path, { timeout: busyTimeoutMs });
  reader.exec("PRAGMA query_only = 1");

  // Prepared statements by their SQL, which is a literal everywhere: the maps stay small.
  const writes = new Map<string, { run(args: readonly SqlValue[]): unknown }>();
  const reads = new Map<string, Database.Statement>();
  let pending: Job[] = [];
  let draining: Promise<void> | null = null;
  let closed = false;

  async function transaction(statements: readonly Statement[]): Promise<void> {
    const runs: (() => unknown)[] = [];
    for (const { sql, args } of statements) {
      let statement = writes.get(sql);
      if (!statement) {
        statement = (await writer.prepare(sql)) as { run(args: readonly SqlValue[]): unknown };
        writes.set(sql, statement);
      }
      const prepared = statement;
      runs.push(() => prepared.run(args));
    }
    if (runs.length === 0) return;
    await writer.exec("BEGIN IMMEDIATE");
    try {
      for (const run of runs) run();
      await writer.exec("COMMIT");
    } catch (error) {
      // SQLite has rolled back by itself after some errors (a full disk).
      await writer.exec("ROLLBACK").catch(() => undefined);
      throw error;
    }
  }

  async function commit(jobs: readonly Job[]): Promise<void> {
    try {
      await transaction(jobs.flatMap((job) => job.statements));
    } catch (error) {
      if (jobs.length > 1) {
        // Only the job that is at fault may fail.
        for (const job of jobs) await commit([job]);
      } else {
        jobs[0]?.reject(storeError(error));
      }
      return;
    }
    for (const job of jobs) job.resolve();
  }

  async function drain(): Promise<void> {
    while (pending.length > 0) {
      const jobs = pending.slice(0, jobsPerTransaction);
      pending = pending.slice(jobsPerTransaction);
      await commit(jobs);
    }
    draining = null;
  }

  function write(statements: readonly Statement[]): Promise<void> {
    if (closed) {
      return Promise.reject(
        new HoneError("The server is shutting down. Send the request again when it is back.", {
          code: "shutting_down",
        }),
      );
    }
    return new Promise((resolve, reject) => {
      pending.push({ statements, resolve, reject });
      draining ??= drain();
    });
  }

  function read(sql: string): Database.Statement {
    let statement = reads.get(sql);
    if (!statement) {
      statement = reader.prepare(sql);
      reads.set(sql, statement);
    }
    return statement;
  }

  return {
    write,
    flush: () => write([]),
    all: (sql, ...args) => read(sql).all(...args),
    get: (sql, ...args) => read(sql).get(...args),
    async close() {
      closed = true;
      await draining;
      reader.close();
      // One file holds everything then: a data directory that nobody uses can be copied.
      await writer.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      writer.close();
    },
  };
}

async function migrate(
  database: { prepare(sql: string): Promise<{ get(): unknown }>; exec(sql: string): Promise<void> },
  path: string,
): Promise<void> {
  const row = (await (await database.prepare("PRAGMA user_version")).get()) as {
    user_version: number;
  };
  if (row.user_version > migrations.length) {
    throw new HoneError(
      `${path} was written by a newer Hone (schema ${row.user_version}, this one knows ${migrations.length}). ` +
        "Start that version, or use another data directory.",
      { code: "invalid_config" },
    );
  }
  for (let version = row.user_version; version < migrations.length; version++) {
    await database.exec(
      `BEGIN IMMEDIATE; ${migrations[version]} PRAGMA user_version = ${version + 1}; COMMIT;`,
    );
  }
}

function storeError(cause: unknown): HoneError {
  const code = (cause as { code?: unknown }).code;
  if (code === "SQLITE_FULL") {
    return new HoneError("The disk of the data directory is full. Free some space, then retry.", {
      code: "disk_full",
      cause,
    });
  }
  return new HoneError(`The database refused a write: ${(cause as Error).message}.`, {
    code: "internal_error",
    cause,
  });
}
