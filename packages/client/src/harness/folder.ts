import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";

const mostBytes = 64 * 1024;
const mostBytesTogether = 1024 * 1024;
/** Folders whose files say nothing about what was done. */
const passedOver = new Set([".git", "node_modules"]);

/**
 * The texts of a folder by their path, with `/`. What is too long, unreadable, no text or no plain file is left out by
 * name; links are not followed.
 */
export async function readFolder(
  folder: string,
): Promise<{ files: Record<string, string>; leftOut: string[] }> {
  const files: Record<string, string> = {};
  const leftOut: string[] = [];
  let together = 0;
  for await (const { path, unread } of entries(folder, folder)) {
    const why = unread ?? (await read(path).catch(cannotBeRead));
    if (why !== null) leftOut.push(`${path} (${why})`);
  }
  return { files, leftOut };

  /** Resolves to why it is left out, or null. */
  async function read(path: string): Promise<string | null> {
    const file = join(folder, path);
    const { size } = await stat(file);
    if (size > mostBytes) return `more than ${mostBytes / 1024} KiB`;
    if (together + size > mostBytesTogether) return "more than 1 MiB together";
    const bytes = await readFile(file);
    try {
      files[path] = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return "no text in UTF-8";
    }
    together += bytes.length;
    return null;
  }
}

/** In the order of their names, so that the same folder gives the same record. */
async function* entries(
  root: string,
  folder: string,
): AsyncGenerator<{ path: string; unread: string | null }> {
  const found = await readdir(folder, { withFileTypes: true }).catch(cannotBeRead);
  if (typeof found === "string") {
    yield { path: `${pathOf(root, folder)}/`, unread: found };
    return;
  }
  for (const entry of found.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const at = join(folder, entry.name);
    const path = pathOf(root, at);
    if (!entry.isDirectory()) yield { path, unread: entry.isFile() ? null : "no plain file" };
    else if (passedOver.has(entry.name)) yield { path: `${path}/`, unread: "not looked into" };
    else yield* entries(root, at);
  }
}

function pathOf(root: string, at: string): string {
  return relative(root, at).split(sep).join("/") || ".";
}

function cannotBeRead(error: unknown): string {
  return `cannot be read: ${(error as NodeJS.ErrnoException).code ?? "unknown"}`;
}
