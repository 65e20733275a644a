import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { HoneError } from "@hone/core";
import { z } from "zod";
import type { EnvironmentPlan } from "./environment.ts";
import { workerDir } from "./paths.ts";
import { cleanEnvironment, pip, pipQuietly, type SetupOptions } from "./virtual-environment.ts";

const sizesSchema = z.object({ files: z.int(), remote: z.int(), local: z.int() });

export interface Download {
  /** What `pip install` is to be given. */
  args: string[];
  /** Bytes from an index and from this machine's own disk. Null: nobody could say. */
  size: { remote: number; local: number } | null;
}

export type Query = { download: Download } | { failure: string };

/** Indexes that describe their files answer in seconds; others make pip fetch the files themselves. */
const queryLimitMs = 90_000;

/**
 * Asks the index what installing this would fetch, and how much it is. Installs nothing. Packages that
 * the requirements of `without` pin are not counted: they are there when this is installed.
 */
export async function queryDownload(
  plan: EnvironmentPlan,
  args: string[],
  { signal }: SetupOptions,
  without?: string,
): Promise<Query> {
  const patience = ["--retries", "1", "--timeout", "15"];
  const limit = AbortSignal.timeout(queryLimitMs);
  const report = await output(
    plan,
    ["-m", "pip", "install", ...pipQuietly, ...patience, "--dry-run", "--report", "-", ...args],
    null,
    signal ? AbortSignal.any([signal, limit]) : limit,
  );
  signal?.throwIfAborted();
  if (limit.aborted) return { download: { args, size: null } };
  if (report.status !== 0) return { failure: lastLine(report.stderr) };
  const script = ["-s", "-m", "hone_worker.tools.download_sizes", ...(without ? [without] : [])];
  const sizes = await output(plan, script, report.stdout, signal);
  signal?.throwIfAborted();
  try {
    return { download: { args, size: sizesSchema.parse(JSON.parse(sizes.stdout)) } };
  } catch {
    // An index that does not answer HEAD; the download itself may well succeed.
    return { download: { args, size: null } };
  }
}

/** The download that the index tells of. Throws where it cannot be asked. */
export function requireDownload(query: Query, { name }: EnvironmentPlan): Download {
  if ("download" in query) return query.download;
  throw new HoneError(
    `Setting up the ${name} environment failed: ${query.failure}\nIt needs a package index: check the network, or pip's index settings.`,
    { code: "invalid_config" },
  );
}

/** Installs, and shows how much of it has come. */
export async function install(
  plan: EnvironmentPlan,
  { args, size }: Download,
  what: string,
  options: SetupOptions,
): Promise<void> {
  // pip keeps what it fetches in its temporary folder until it has all of it.
  const folder = mkdtempSync(join(dirname(plan.dir), ".download-"));
  const total = size?.remote ?? 0;
  const timer = setInterval(() => {
    const fetched = bytesIn(folder);
    const state =
      total > 0 && fetched < total
        ? `downloading ${what}: ${megabytes(fetched)} of ${megabytes(total)}`
        : `installing ${what}`;
    options.show?.(state);
  }, 300);
  try {
    await pip(plan, args, { ...options, env: { TMPDIR: folder } });
  } finally {
    clearInterval(timer);
    options.show?.(null);
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** `64 MB to download`, for people. */
export function describeSize(sizes: readonly Download["size"][]): string {
  const known = sizes.filter((size) => size !== null);
  const remote = known.reduce((sum, size) => sum + size.remote, 0);
  const local = known.reduce((sum, size) => sum + size.local, 0);
  const unknown = known.length < sizes.length ? " and what the index does not tell" : "";
  const there = local > 0 ? `, ${megabytes(local)} from this machine's disk` : "";
  return `${megabytes(remote)}${unknown} to download${there}`;
}

function megabytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return `${Math.round(bytes / 1e6)} MB`;
}

/** The folders that pip unpacks into; what else is there is its cache's copy of the same bytes. */
function bytesIn(folder: string): number {
  let sum = 0;
  try {
    for (const unpack of readdirSync(folder).filter((name) => name.startsWith("pip-unpack-"))) {
      for (const file of readdirSync(join(folder, unpack))) {
        sum += statSync(join(folder, unpack, file)).size;
      }
    }
  } catch {
    // A file that was moved between the two calls.
  }
  return sum;
}

async function output(
  plan: EnvironmentPlan,
  args: string[],
  input: string | null,
  signal: AbortSignal | undefined,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(plan.python, args, {
    signal,
    env: { ...cleanEnvironment(), PYTHONPATH: workerDir },
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once("error", () => resolve(null));
    child.once("close", resolve);
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(input ?? "");
  const [status, stdout, stderr] = await Promise.all([
    ended,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { status, stdout, stderr };
}

function lastLine(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() && !line.startsWith("WARNING"));
  return lines.at(-1)?.replace(/^ERROR: /, "") ?? "pip did not say why";
}
