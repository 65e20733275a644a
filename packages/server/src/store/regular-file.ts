import { constants } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";

/** Why a file was not opened. The message is for people and names no path. */
export class NotReadable extends Error {
  readonly missing: boolean;

  constructor(message: string, missing = false, options?: ErrorOptions) {
    super(message, options);
    this.missing = missing;
  }
}

/**
 * Opens a regular file and nothing else. A pipe would wait for its writer, in one of the few threads that all
 * file access shares. So the path is looked at first, opened without waiting, and looked at again.
 */
export async function openRegular(file: string): Promise<{ handle: FileHandle; bytes: number }> {
  try {
    const found = await lstat(file);
    if (!found.isFile()) throw new NotReadable("is not a regular file");
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
    const handle = await open(file, flags);
    const opened = await handle.stat();
    if (opened.isFile()) return { handle, bytes: opened.size };
    await handle.close();
  } catch (cause) {
    if (cause instanceof NotReadable) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR")
      throw new NotReadable("is missing", true, { cause });
    throw new NotReadable(`cannot be read (${code ?? "unknown"})`, false, { cause });
  }
  throw new NotReadable("is not a regular file");
}

/** Pieces of a file that has as many bytes as it had when it was opened; throws when it turns out shorter. */
export async function* piecesOf(
  handle: FileHandle,
  bytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes;) {
    signal.throwIfAborted();
    const piece = Buffer.allocUnsafe(Math.min(1024 * 1024, bytes - at));
    const { bytesRead } = await handle.read(piece, 0, piece.length, at);
    if (bytesRead === 0) throw new NotReadable("became shorter while it was read");
    at += bytesRead;
    yield piece.subarray(0, bytesRead);
  }
}
