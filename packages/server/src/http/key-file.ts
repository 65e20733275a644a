import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { HoneError } from "@hone/core";

/** 22 characters of base64url carry 128 bits. */
const strongLength = 22;

export interface ServerKey {
  /** The one that counts now. */
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
  let key = readFileSync(file, "utf8").trim();
  if (key.length >= strongLength && !/\s/.test(key)) {
    return {
      get key() {
        return key;
      },
      file,
      rotate() {
        // The file first: should the server end in between, the next start reads what the file says.
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

function refuseToRotate(): never {
  throw new HoneError(
    "This server has its key from HONE_API_KEY. Change it there, then start the server again.",
    { code: "invalid_request" },
  );
}

/** At no moment is there half a key, or none. */
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
    // Exclusive: of two servers that start at once, both use the key of the first.
    descriptor = openSync(file, "wx", 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    throw error;
  }
  writeSync(descriptor, `hone_${randomBytes(32).toString("base64url")}\n`);
  fsyncSync(descriptor);
  closeSync(descriptor);
}

const loopback = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/i;

/** A server that others can reach must not be guessable. */
export function checkExposure(host: string, key: string): void {
  if (loopback.test(host) || key.length >= strongLength) return;
  throw new HoneError(
    `The server would listen on ${host} with a key of ${key.length} characters. Use one of at least ${strongLength} (128 random bits), or unset HONE_API_KEY to have one made.`,
    { code: "invalid_config" },
  );
}
