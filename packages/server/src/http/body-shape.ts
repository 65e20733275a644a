import { HoneError } from "@hone/core";

/**
 * `JSON.parse` takes seconds over millions of open brackets, and what it returns then overflows
 * `JSON.stringify`: nothing that we accept is nested more deeply than this.
 */
const maxDepth = 200;
/** Limit of the values in a body: each costs some microseconds, in one place after another. */
export const maxValues = 200_000;
/** Limit of the keys in one object. */
export const maxKeys = 4_096;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const openArray = 0x5b;
const closeArray = 0x5d;
const openObject = 0x7b;
const closeObject = 0x7d;

const bytesPerTurn = 1024 * 1024;

/**
 * Refuses bodies that would take long to parse, before they are parsed. It looks at bytes only, a mebibyte at a
 * time.
 */
export async function checkShape(bytes: Uint8Array, pause: () => Promise<unknown>): Promise<void> {
  // How many keys each open object has; -1 for an array.
  const open: number[] = [];
  let values = 1;
  let inString = false;
  let turn = bytesPerTurn;
  for (let i = 0; i < bytes.length; i += 1) {
    if (i >= turn) {
      await pause();
      turn += bytesPerTurn;
    }
    const byte = bytes[i];
    if (inString) {
      // What is escaped may be a quote.
      if (byte === backslash) i += 1;
      else if (byte === quote) inString = false;
    } else if (byte === quote) {
      inString = true;
    } else if (byte === openArray || byte === openObject) {
      values += 1;
      open.push(byte === openObject ? 1 : -1);
      if (open.length > maxDepth) throw tooDeep();
    } else if (byte === closeArray || byte === closeObject) {
      open.pop();
    } else if (byte === comma) {
      values += 1;
      const keys = open.at(-1) ?? -1;
      if (keys > 0) open[open.length - 1] = keys + 1;
      if (keys >= maxKeys) throw tooMany(`an object with more than ${maxKeys} keys`);
      if (values > maxValues) throw tooMany(`more than ${maxValues} values`);
    }
  }
}

function tooDeep(): HoneError {
  return new HoneError(`The body is nested more than ${maxDepth} levels deep. Flatten it.`, {
    code: "invalid_json",
  });
}

function tooMany(what: string): HoneError {
  return new HoneError(`The body has ${what}. Send less in one request.`, {
    code: "body_too_large",
  });
}
