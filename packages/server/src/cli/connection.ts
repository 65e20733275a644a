import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type ErrorEnvelope, HoneError, isErrorCode } from "@hone/core";
import { Command } from "commander";
import type { z } from "zod";
import { defaultDataDir } from "../setup/paths.ts";

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

/** What a running server of this machine says of itself. */
export interface Announcement {
  url: string;
  pid: number;
  /** The base's folder, or its id on the hub. */
  base: string;
}

export interface Connection {
  url: string;
  /** Of the server on this machine that the data directory names; null for any other. */
  local: { dataDir: string; announcement: Announcement } | null;
  get<S extends z.ZodType>(schema: S, path: string): Promise<z.output<S>>;
  send<S extends z.ZodType>(
    schema: S,
    method: "POST" | "PUT" | "PATCH" | "DELETE",
    path: string,
    body?: unknown,
  ): Promise<z.output<S>>;
  /** A response to be read as a stream. Throws what an error response says. */
  open(path: string, headers?: Record<string, string>): Promise<Response>;
}

type Environment = Readonly<Record<string, string | undefined>>;

export function dataDirOf(flags: ServerFlags): string {
  return resolve(flags.dataDir ?? defaultDataDir());
}

/**
 * The server that is meant: `--url`, else that of `--data-dir`, else HONE_URL, else that of the usual data
 * directory. The key of a data directory goes to its own server only.
 */
export function connect(flags: ServerFlags, environment: Environment = process.env): Connection {
  const dataDir = dataDirOf(flags);
  const announced = readAnnouncement(dataDir);
  const announcement = announced && isAlive(announced.pid) ? announced : null;
  const named = flags.url ?? (flags.dataDir === undefined ? environment["HONE_URL"] : undefined);
  const url = (named ?? announcement?.url)?.replace(/\/+$/, "").replace(/\/v1$/, "");
  if (url === undefined || !URL.canParse(url))
    throw url === undefined ? none(dataDir, announced) : noURL(url);
  const isLocal = announcement !== null && originOf(announcement.url) === originOf(url);
  const local = isLocal ? { dataDir, announcement } : null;
  const fromFile = local ? keyIn(dataDir) : undefined;
  const fromEnvironment = environment["HONE_API_KEY"] || undefined;
  const key =
    flags.dataDir === undefined ? (fromEnvironment ?? fromFile) : (fromFile ?? fromEnvironment);
  if (key === undefined) {
    throw new HoneError(
      `There is no key for ${url}. Set HONE_API_KEY to what that server printed.`,
      {
        code: "invalid_config",
      },
    );
  }

  async function open(
    path: string,
    init: Pick<RequestInit, "method" | "body"> & { headers?: Record<string, string> | undefined },
  ): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(url + path, {
        ...init,
        headers: { authorization: `Bearer ${key}`, ...init.headers },
      });
    } catch (cause) {
      throw new HoneError(`No Hone server answers at ${url}. ${howToStart}`, {
        code: "connection_failed",
        cause,
      });
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  async function json<S extends z.ZodType>(schema: S, response: Response): Promise<z.output<S>> {
    const parsed = schema.safeParse(await response.json());
    if (parsed.success) return parsed.data;
    throw new HoneError(
      `${url} answered with something else than this version of the command line expects. Use the server's own version.`,
      { code: "invalid_response", cause: parsed.error },
    );
  }

  return {
    url,
    local,
    get: async (schema, path) => json(schema, await open(path, {})),
    async send(schema, method, path, body) {
      const content =
        body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
      return json(schema, await open(path, { method, ...content }));
    },
    open: (path, headers) => open(path, { headers: headers ?? {} }),
  };
}

/** Null where no server of the data directory is announced, or none answers. */
export async function connectIfRunning(flags: ServerFlags): Promise<Connection | null> {
  const announced = readAnnouncement(dataDirOf(flags));
  if (flags.url === undefined && !(announced && isAlive(announced.pid))) {
    if (flags.dataDir !== undefined || !process.env["HONE_URL"]) return null;
  }
  const connection = connect(flags);
  try {
    await (await connection.open("/health")).body?.cancel();
  } catch (error) {
    if (HoneError.isInstance(error) && error.code === "connection_failed" && connection.local) {
      return null;
    }
    // One that is starting, or has lost a child, answers 503 and is there.
    if (!HoneError.isInstance(error) || error.status !== 503) throw error;
  }
  return connection;
}

const howToStart =
  "Start one with `npx @hone/server serve --base <model>`, or name another with --url.";

function none(dataDir: string, dead: Announcement | null): HoneError {
  const why = dead ? `server.json names pid ${dead.pid}, which is gone` : "there is no server.json";
  return new HoneError(`No Hone server runs on ${dataDir} (${why}). ${howToStart}`, {
    code: "invalid_config",
  });
}

function noURL(url: string): HoneError {
  return new HoneError(`"${url}" is not a URL. Give one such as http://127.0.0.1:7777.`, {
    code: "invalid_config",
  });
}

function readAnnouncement(dataDir: string): Announcement | null {
  try {
    const text = readFileSync(join(dataDir, "server.json"), "utf8");
    const found = JSON.parse(text) as Partial<Announcement>;
    return typeof found.url === "string" ? (found as Announcement) : null;
  } catch {
    return null;
  }
}

/**
 * A server that was killed leaves its announcement, and its port to anybody: the key must not go there.
 * A server in a container of its own has pids of its own; it is reached by --url and HONE_API_KEY.
 */
function isAlive(pid: unknown): boolean {
  if (typeof pid !== "number" || !Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's process is there all the same.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function keyIn(dataDir: string): string | undefined {
  const file = join(dataDir, "key");
  return existsSync(file) ? readFileSync(file, "utf8").trim() || undefined : undefined;
}

/** `localhost` and its address are one server. */
function originOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin.replace("//localhost", "//127.0.0.1") : url;
}

async function errorOf(response: Response): Promise<HoneError> {
  const text = await response.text();
  let error: Partial<ErrorEnvelope["error"]> = {};
  try {
    error = (JSON.parse(text) as Partial<ErrorEnvelope>).error ?? {};
  } catch {
    // The status is all there is.
  }
  return new HoneError(error.message ?? `The server answered with status ${response.status}.`, {
    code: isErrorCode(error.code) ? error.code : "invalid_response",
    param: error.param ?? undefined,
    status: response.status,
  });
}
