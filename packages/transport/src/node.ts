import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { z } from "zod";
import type { Announced } from "./server-key.ts";

export { makeFolder } from "./folder-node.ts";

/** What a running server says of itself in `server.json` of its data directory, for programs of the same machine. */
export interface Announcement {
  /** Where programs of this machine reach it, without `/v1`. */
  url: string;
  pid: number;
  /** The base's folder, or its id on the hub. */
  base: string;
}

const announcementSchema = z.object({
  url: z.url({ protocol: /^https?$/ }),
  pid: z.int().positive(),
  base: z.string().default(""),
});

/** HONE_HOME, else ~/.hone: the data directory that is meant where none is named. */
export function defaultDataDir(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string {
  return environment["HONE_HOME"] || join(homedir(), ".hone");
}

const fileOf = (dataDir: string): string => join(dataDir, "server.json");

/** For its owner's eyes only. */
export function announce(dataDir: string, announcement: Announcement): void {
  writeFileSync(fileOf(dataDir), `${JSON.stringify(announcement)}\n`, { mode: 0o600 });
}

export function withdraw(dataDir: string): void {
  rmSync(fileOf(dataDir), { force: true });
}

/**
 * The server of a data directory with its key, if its process lives: one that was killed leaves its announcement,
 * and its port to anybody. A server in a container has process ids of its own, and counts as gone: name it by its
 * URL and HONE_API_KEY.
 */
export function announcedServer(
  dataDir: string,
): Announced & { server: (Announcement & { key: string | null }) | null } {
  const none = (why: string) => ({
    server: null,
    absence: `No Hone server runs on ${dataDir} (${why})`,
  });
  const text = readText(fileOf(dataDir));
  if (text === null) return none("there is no server.json");
  let announcement: Announcement;
  try {
    announcement = announcementSchema.parse(JSON.parse(text));
  } catch {
    return none("its server.json names no url and pid of a server");
  }
  const { pid } = announcement;
  if (!isAlive(pid)) return none(`server.json names pid ${pid}, which is gone`);
  const key = readText(join(dataDir, "key"))?.trim() || null;
  return { server: { ...announcement, key } };
}

function readText(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's process is there all the same.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
