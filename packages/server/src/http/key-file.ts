import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { HoneError } from "@hone/core";
import { guessingBits, strongBits, strongLength } from "./key-strength.ts";

export interface ServerKey {
  /** The key that is valid now. */
  readonly key: string;
  /** Where a user of this machine finds it. */
  readonly file: string;
  /** Makes a new key and writes it; from then on the old one is refused. */
  rotate(): string;
}

/** HONE_API_KEY, else the key in the data directory, made on the first start for its owner's eyes only. */
export function serverKey(
  dataDir: string,
  given = process.env["HONE_API_KEY"],
  make = true,
): ServerKey {
  const file = join(dataDir, "key");
  if (given !== undefined && given !== "") {
    if (/\s/.test(given)) {
      throw new HoneError("HONE_API_KEY contains a space or a line break. Use one word.", {
        code: "invalid_config",
      });
    }
    return { key: given, file: "HONE_API_KEY of the server's environment", rotate: refuseToRotate };
  }
  if (!existsSync(file)) {
    if (!make) {
      throw new HoneError(
        `There is no key in ${dataDir}: the first start of a server makes one. Name another folder with --data-dir.`,
        { code: "invalid_config" },
      );
    }
    create(file);
  }
  let key = readOwn(file);
  if (key.length >= strongLength && !/\s/.test(key)) {
    return {
      get key() {
        return key;
      },
      file,
      rotate() {
        // The file is written first: if the server ends in between, the next start reads the file.
        replace(file);
        key = readFileSync(file, "utf8").trim();
        return key;
      },
    };
  }
  throw new HoneError(
    `${file} does not hold a key of at least ${strongLength} characters. Delete it: the next start makes a new one.`,
    { code: "invalid_config" },
  );
}

/** Whoever can read the key can use it, and whoever can write it can choose it. */
function readOwn(file: string): string {
  const descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = fstatSync(descriptor);
    if (!found.isFile() || found.size > mostBytes) {
      throw new HoneError(`${file} is no key file. Move it away: the next start makes a new one.`, {
        code: "invalid_config",
      });
    }
    const mode = found.mode & 0o777;
    const isOurs = process.getuid === undefined || found.uid === process.getuid();
    // Some mounts give the group its rights at each start. If the file is ours, the rights are corrected
    // silently.
    if (isOurs && (mode & 0o070) !== 0 && (mode & 0o007) === 0) fchmodSync(descriptor, 0o600);
    // Windows knows no such modes.
    const isOpen = process.getuid !== undefined && (mode & 0o007) !== 0;
    if (!isOpen && (isOurs || process.getuid?.() === 0)) {
      return readFileSync(descriptor, "utf8").trim();
    }
    throw new HoneError(
      `Others than its owner can read or change the key in ${file} (mode ${mode.toString(8)}). Run \`chmod 600 ${file}\`; if somebody may have read it, delete it instead: the next start makes a new key.`,
      { code: "invalid_config" },
    );
  } finally {
    closeSync(descriptor);
  }
}

function refuseToRotate(): never {
  throw new HoneError(
    "This server has its key from HONE_API_KEY. Change it there, then start the server again.",
    { code: "invalid_request" },
  );
}

/** Replaces the file at once, so that there is never half a key, or none. */
function replace(file: string): void {
  const next = `${file}.next`;
  rmSync(next, { force: true });
  create(next);
  renameSync(next, file);
  const folder = openSync(dirname(file), "r");
  fsyncSync(folder);
  closeSync(folder);
}

function create(file: string): void {
  let descriptor: number;
  try {
    // Exclusive: if two servers start at once, both use the key of the first.
    descriptor = openSync(file, "wx", 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    throw error;
  }
  writeSync(descriptor, `hone_${randomBytes(32).toString("base64url")}\n`);
  fsyncSync(descriptor);
  closeSync(descriptor);
}

/** Limit of a key file. A larger file is something else. */
const mostBytes = 4096;

const loopback = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/i;

/** The key of a server that others can reach must not be easy to guess. */
export function checkExposure(host: string, key: string): void {
  if (loopback.test(host)) return;
  const isLong = key.length >= strongLength;
  if (isLong && guessingBits(key) >= strongBits) return;
  const fault = isLong ? "that can be guessed" : `of ${key.length} characters`;
  throw new HoneError(
    `The server would listen on ${host} with a key ${fault}. Use at least ${strongLength} random characters (128 bits), or unset HONE_API_KEY to have a key made.`,
    { code: "invalid_config" },
  );
}
