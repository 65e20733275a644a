import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HoneError } from "@hone/core";

/** Where the key of a data directory is kept. */
export function keyFileOf(dataDir: string): string {
  return join(dataDir, "key");
}

/** The server's key: HONE_API_KEY, else the one in the data directory, made on the first start. */
export function loadKey(
  dataDir: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const given = environment["HONE_API_KEY"];
  if (given) return checked(given, "HONE_API_KEY");
  const path = keyFileOf(dataDir);
  mkdirSync(dataDir, { recursive: true });
  try {
    // "wx" makes the file or fails, so that two starts at once end with one key.
    writeFileSync(path, `hone-${randomBytes(24).toString("base64url")}\n`, {
      flag: "wx",
      mode: 0o600,
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    chmodSync(path, 0o600);
  }
  return checked(readFileSync(path, "utf8").trim(), path);
}

// 22 characters of base64 are 128 bits.
function checked(key: string, from: string): string {
  if (/^[\x21-\x7e]{22,256}$/.test(key)) return key;
  throw new HoneError(
    `The key in ${from} is too short or has characters that a header cannot carry. Use 22 or more of A-Z a-z 0-9 _ -, or remove it and start again.`,
    { code: "invalid_config" },
  );
}
