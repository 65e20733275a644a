import { resolve } from "node:path";
import { HoneError } from "@hone/core";
import { findServer, longestTimerMs, type Method, Transport } from "@hone/transport";
import { announcedServer, type Announcement, defaultDataDir } from "@hone/transport/node";
import { Command } from "commander";
import type { z } from "zod";

export interface ServerFlags {
  url?: string | undefined;
  dataDir?: string | undefined;
  json?: boolean | undefined;
}

/** A command that talks to a running server, or looks where one keeps its data. */
export function serverCommand(name: string): Command {
  return new Command(name)
    .option("--url <url>", "the server (default: HONE_URL, else the one of the data directory)")
    .option("--data-dir <folder>", "its data directory (default: HONE_HOME or ~/.hone)")
    .option("--json", "print JSON");
}

export interface Connection {
  url: string;
  /** For what goes on across lost connections. */
  transport: Transport;
  /** Of the server on this machine that the data directory names; null for any other. */
  local: { dataDir: string; announcement: Announcement } | null;
  get<S extends z.ZodType>(schema: S, path: string): Promise<z.output<S>>;
  send<S extends z.ZodType>(
    schema: S,
    method: Exclude<Method, "GET">,
    path: string,
    body?: unknown,
  ): Promise<z.output<S>>;
  /** A response to be read as a stream. Throws what an error response says. */
  open(path: string, headers?: Record<string, string>): Promise<Response>;
}

export function dataDirOf(flags: ServerFlags): string {
  return resolve(flags.dataDir ?? defaultDataDir());
}

/** The server that is meant, by the rule that all of Hone has: `--url` and `--data-dir` are what the call says. */
export function connect(flags: ServerFlags): Connection {
  const dataDir = dataDirOf(flags);
  const announced = announcedServer(dataDir);
  const { serverURL, apiKey, isAnnounced } = findServer(
    {
      baseURL: flags.url,
      environment: process.env,
      announced,
      dataDirNamed: flags.dataDir !== undefined,
    },
    { commandLine: true },
  );
  const transport = new Transport({
    ...{ serverURL, apiKey },
    fetch: globalThis.fetch,
    // No retries and no limit: a person sees the error and can ask again, and how long a command may take is unknown.
    maxRetries: 0,
    timeoutMs: longestTimerMs,
  });

  /** In the words of who typed a command. */
  async function told<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (!HoneError.isInstance(error)) throw error;
      const { code, cause } = error;
      if (code === "connection_failed") {
        throw new HoneError(
          `No Hone server answers at ${serverURL}. Start one with \`npx @hone/server serve --base <model>\`, or name another with --url.`,
          { code, cause },
        );
      }
      if (code === "invalid_response") {
        throw new HoneError(
          `${serverURL} answered with something else than this version of the command line expects. Use the server's own version.`,
          { code, cause },
        );
      }
      throw error;
    }
  }

  return {
    url: serverURL,
    transport,
    local: isAnnounced && announced.server ? { dataDir, announcement: announced.server } : null,
    get: (schema, path) => told(transport.json("GET", path, schema)),
    send: (schema, method, path, body) => told(transport.json(method, path, schema, { body })),
    open: (path, headers) => told(transport.open("GET", path, { headers })),
  };
}

/** Null where no server of the data directory is announced, or none answers. */
export async function connectIfRunning(flags: ServerFlags): Promise<Connection | null> {
  if (flags.url === undefined && !announcedServer(dataDirOf(flags)).server) {
    if (flags.dataDir !== undefined || !process.env["HONE_URL"]) return null;
  }
  const connection = connect(flags);
  try {
    await (await connection.open("/health")).body?.cancel();
  } catch (error) {
    if (HoneError.isInstance(error) && error.code === "connection_failed" && connection.local) {
      return null;
    }
    // A server that is starting or has lost a child answers 503: it is there.
    if (!HoneError.isInstance(error) || error.status !== 503) throw error;
  }
  return connection;
}
