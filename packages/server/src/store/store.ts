import { statfsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import AsyncDatabase from "libsql/promise";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { createPauses } from "./pauses.ts";
import { ownOnly } from "./own-only.ts";
import { migrations } from "./schema.ts";

export type SqlValue = string | number | null | Uint8Array;

export interface Statement {
  sql: string;
  args: readonly SqlValue[];
  /** Set if it may touch many rows. It then runs off the main thread, which makes every run a little slower. */
  long?: boolean | undefined;
}

/**
 * The server's SQLite file. All writes go through one queue. Writes that wait together share a transaction, and
 * its commit (the fsync) runs off the main thread. Reads see what was committed. Nothing here holds the main
 * thread for long: a statement that touches many rows is marked `long`, and many rows are read with `query`.
 */
export interface Store {
  /** Runs all of the statements or none, and resolves when they are on disk. Writes keep their order. */
  write(statements: readonly Statement[]): Promise<void>;
  /** Resolves when every write that was queued before has ended. */
  flush(): Promise<void>;
  /**
   * Gives unused pages back to the disk, and says by how many bytes the files became smaller. It works in small
   * steps, and others write in between. A large file of an older Hone can only be rewritten as a whole, while
   * nobody else can write. That is done only if `alone` is true.
   */
  vacuum(alone: boolean): Promise<number>;
  /** What `vacuum` would give back at least. */
  freeBytes(): number;
  /** Finds rows off the main thread, one query at a time. Fetching them is on the main thread, so set a limit. */
  query(sql: string, ...args: SqlValue[]): Promise<unknown[]>;
  /**
   * Rows as the schema has them; the caller names their type. Runs on the main thread, so use it for what an
   * index finds.
   */
  all(sql: string, ...args: SqlValue[]): unknown[];
  get(sql: string, ...args: SqlValue[]): unknown;
  close(): Promise<void>;
}

interface Job {
  statements: readonly Statement[];
  /** Runs in place of statements, in a turn of its own, because it cannot share a transaction. */
  alone?: (() => Promise<unknown>) | undefined;
  resolve: () => void;
  reject: (error: unknown) => void;
}

// All writes of a transaction are answered at its end. With too many of them the first would wait for long.
const jobsPerTransaction = 64;
const busyTimeoutMs = 5000;
const pagesPerVacuum = 512;
/** What `PRAGMA auto_vacuum` says of a file that can become smaller in steps. */
const incremental = 2;
/** A file up to this size is rewritten in less than a second. */
const smallFile = 64 * 1024 * 1024;
/** From this size on, a new index takes long enough to say so. */
const largeFile = 256 * 1024 * 1024;

interface AsyncStatement {
  /** On the main thread. */
  run(args: readonly SqlValue[]): unknown;
  /** The first step is off it: all of a statement that changes rows, all of the search of one that sorts. */
  all(args: readonly SqlValue[]): Promise<unknown[]>;
}

export async function openStore(dataDir: string, log?: Logger): Promise<Store> {
  const path = join(dataDir, "hone.db");
  ownOnly(path);
  const writer = new AsyncDatabase(path, { timeout: busyTimeoutMs });
  // auto_vacuum takes effect in a new file only, or once an old one has been rewritten.
  await writer.exec(
    "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
  );
  await migrate(writer, path, log);
  const reader = new Database(path, { timeout: busyTimeoutMs });
  reader.exec("PRAGMA query_only = 1");
  const searcher = new AsyncDatabase(path, { timeout: busyTimeoutMs });
  await searcher.exec("PRAGMA query_only = 1");
  // While it searches, every other call on this connection would wait on the main thread.
  const searching = pLimit(1);

  // Prepared statements by their SQL, which is a literal everywhere: the maps stay small.
  const writes = new Map<string, AsyncStatement>();
  const searches = new Map<string, AsyncStatement>();
  const reads = new Map<string, Database.Statement>();
  let pending: Job[] = [];
  let draining: Promise<void> | null = null;
  let closed = false;

  async function prepared(
    database: AsyncDatabase,
    known: Map<string, AsyncStatement>,
    sql: string,
  ): Promise<AsyncStatement> {
    const statement = known.get(sql) ?? ((await database.prepare(sql)) as AsyncStatement);
    known.set(sql, statement);
    return statement;
  }

  async function transaction(statements: readonly Statement[]): Promise<void> {
    const runs: (() => unknown)[] = [];
    for (const { sql, args, long } of statements) {
      const statement = await prepared(writer, writes, sql);
      runs.push(() => (long ? statement.all(args) : statement.run(args)));
    }
    if (runs.length === 0) return;
    const pauses = createPauses();
    await writer.exec("BEGIN IMMEDIATE");
    try {
      for (const run of runs) {
        await run();
        await pauses.due();
      }
      await writer.exec("COMMIT");
    } catch (error) {
      // SQLite has rolled back by itself after some errors (a full disk).
      await writer.exec("ROLLBACK").catch(() => undefined);
      throw error;
    }
  }

  async function commit(jobs: readonly Job[]): Promise<void> {
    try {
      if (jobs[0]?.alone) await jobs[0].alone();
      else await transaction(jobs.flatMap((job) => job.statements));
    } catch (error) {
      if (jobs.length > 1) {
        // One of them is at fault. Each is tried alone, so that only that one fails.
        for (const job of jobs) await commit([job]);
      } else {
        jobs[0]?.reject(storeError(error, path));
      }
      return;
    }
    for (const job of jobs) job.resolve();
  }

  async function drain(): Promise<void> {
    while (pending.length > 0) {
      const alone = pending.slice(0, jobsPerTransaction).findIndex((job) => job.alone);
      const count = alone < 0 ? jobsPerTransaction : Math.max(1, alone);
      const jobs = pending.slice(0, count);
      pending = pending.slice(count);
      await commit(jobs);
    }
    draining = null;
  }

  function write(statements: readonly Statement[], alone?: Job["alone"]): Promise<void> {
    if (closed) {
      return Promise.reject(
        new HoneError("The server is shutting down. Send the request again when it is back.", {
          code: "shutting_down",
        }),
      );
    }
    return new Promise((resolve, reject) => {
      pending.push({ statements, alone, resolve, reject });
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

  const pragma = (name: string): number => {
    const row = read(`PRAGMA ${name}`).get() as Record<string, number>;
    return row[name] ?? 0;
  };

  return {
    write: (statements) => write(statements),
    flush: () => write([]),
    freeBytes: () => pragma("freelist_count") * pragma("page_size"),
    async vacuum(alone) {
      const before = sizeOnDisk(path);
      if (pragma("auto_vacuum") === incremental) {
        for (let left = pragma("freelist_count"), free = left + 1; left > 0 && left < free;) {
          free = left;
          await write([], () => writer.exec(`PRAGMA incremental_vacuum(${pagesPerVacuum})`));
          left = pragma("freelist_count");
        }
      } else if (alone || before <= smallFile) {
        await write([], () => writer.exec("VACUUM"));
      }
      await write([], () => writer.exec("PRAGMA wal_checkpoint(TRUNCATE)"));
      return Math.max(0, before - sizeOnDisk(path));
    },
    query: (sql, ...args) =>
      searching(async () => (await prepared(searcher, searches, sql)).all(args)),
    all: (sql, ...args) => read(sql).all(...args),
    get: (sql, ...args) => read(sql).get(...args),
    async close() {
      closed = true;
      await draining;
      await searching(() => searcher.close());
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
  log: Logger | undefined,
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
  const size = statSync(path).size;
  if (row.user_version < migrations.length && size > largeFile) {
    log?.warn(
      { database: path, gigabytes: size / 1e9, schema: [row.user_version, migrations.length] },
      "bringing a large database up to date, once: some ten seconds for each gigabyte",
    );
  }
  for (let version = row.user_version; version < migrations.length; version++) {
    await database.exec(
      `BEGIN IMMEDIATE; ${migrations[version]} PRAGMA user_version = ${version + 1}; COMMIT;`,
    );
  }
}

/** Below this, SQLite's own bookkeeping (the shared memory of its log) fails before its writes do. */
const nearlyFull = 64 * 1024;

function storeError(cause: unknown, path: string): HoneError {
  const code = String((cause as { code?: unknown }).code);
  if (code === "SQLITE_FULL" || (code.startsWith("SQLITE_IOERR") && freeSpace(path) < nearlyFull)) {
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

/** Includes the write-ahead log, which holds what was written lately. */
function sizeOnDisk(path: string): number {
  return [path, `${path}-wal`].reduce(
    (total, file) => total + (statSync(file, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}

function freeSpace(path: string): number {
  try {
    const { bavail, bsize } = statfsSync(dirname(path));
    return bavail * bsize;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
