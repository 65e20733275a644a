import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { HoneError } from "@hone/core";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import { readRecord, type JudgeRecord } from "./record.ts";

/** Bad lines that an error names; the others are counted. */
const named = 5;

/**
 * Labelled data in OpenJudge's schema, from a JSONL or Parquet file or as values. Every line is read before anything is
 * trained: bad ones are named by file and line, and none is left out in silence.
 */
export async function readJudgeData(data: string | readonly unknown[]): Promise<JudgeRecord[]> {
  const records: JudgeRecord[] = [];
  const bad: HoneError[] = [];
  for await (const { place, value } of entriesOf(data)) {
    try {
      records.push(readRecord(value(), place));
    } catch (error) {
      if (!HoneError.isInstance(error)) throw error;
      bad.push(error);
    }
  }
  requireGood(bad);
  if (records.length > 0) return records;
  throw new HoneError(
    `${typeof data === "string" ? data : "data"} has no line to learn from. Give at least one of {input, output}.`,
    { code: "invalid_request", param: "data" },
  );
}

/** One error for all lines that are no good. */
export function requireGood(bad: readonly HoneError[]): void {
  const [first] = bad;
  if (!first) return;
  const more = bad.length > named ? `\n… and ${bad.length - named} more.` : "";
  const lines = bad.slice(0, named).map(({ message }) => message);
  throw new HoneError(`${lines.join("\n")}${more}`, {
    ...{ code: first.code, param: first.param ?? undefined, cause: first },
  });
}

interface Entry {
  place: string;
  value: () => unknown;
}

function entriesOf(data: string | readonly unknown[]): AsyncIterable<Entry> | Iterable<Entry> {
  if (typeof data !== "string") {
    return data.map((value, at) => ({ place: `data[${at}]`, value: () => value }));
  }
  return /\.parquet$/i.test(data) ? parquetRows(data) : jsonLines(data);
}

async function* jsonLines(path: string): AsyncGenerator<Entry> {
  let line = 0;
  try {
    for await (const text of createInterface({ input: createReadStream(path) })) {
      line += 1;
      if (text.trim() === "") continue;
      const place = `${basename(path)}:${line}`;
      yield { place, value: () => parsed(text, place) };
    }
  } catch (cause) {
    if (HoneError.isInstance(cause)) throw cause;
    throw unreadable(path, cause);
  }
}

function parsed(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HoneError(`${place} is not JSON: ${(cause as Error).message}.`, {
      ...{ code: "invalid_json", param: place, cause },
    });
  }
}

export async function* parquetRows(path: string): AsyncGenerator<Entry> {
  let rows: Record<string, unknown>[];
  try {
    rows = await parquetReadObjects({ file: await asyncBufferFromFile(path) });
  } catch (cause) {
    throw unreadable(path, cause);
  }
  for (const [at, row] of rows.entries()) {
    yield { place: `${basename(path)}:row ${at + 1}`, value: () => plain(row) };
  }
}

/** Parquet's whole numbers of 64 bits are bigints, and a column that one of its rows lacks is null there. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (inner === null ? [] : [[key, plain(inner)]])),
  );
}

function unreadable(path: string, cause: unknown): HoneError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new HoneError(
    `${path} cannot be read: ${why}. Give a JSONL file, or a Parquet file without compression or with Snappy.`,
    { code: "invalid_request", param: "data", cause },
  );
}
