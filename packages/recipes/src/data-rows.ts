import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { HoneError } from "@hone/core";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";

/** A row of a data file: where it stands, as `data.jsonl:17` or `data.parquet:row 17`, and what it holds. */
export interface DataRow {
  place: string;
  /** Throws where it cannot be read. */
  value: () => unknown;
}

/** Bad rows that an error names; the others are counted. */
const named = 5;

/** The rows of a JSONL file, or of a Parquet file by its ending. Blank lines are none. */
export function dataRows(path: string): AsyncIterable<DataRow> {
  return /\.parquet$/i.test(path) ? parquetRows(path) : jsonlRows(path);
}

/** Reads each row. All bad ones are named together, and nothing is given then; no row at all is an error too. */
export async function readAll<Row>(
  rows: AsyncIterable<DataRow> | Iterable<DataRow>,
  read: (value: unknown, place: string) => Row,
  none: string,
): Promise<Row[]> {
  const found: Row[] = [];
  const bad: HoneError[] = [];
  for await (const { place, value } of rows) {
    try {
      found.push(read(value(), place));
    } catch (error) {
      if (!HoneError.isInstance(error)) throw error;
      bad.push(error);
    }
  }
  requireGood(bad);
  if (found.length > 0) return found;
  throw new HoneError(none, { code: "invalid_request", param: "data" });
}

/** One error for all rows that are no good. */
export function requireGood(bad: readonly HoneError[]): void {
  const [first] = bad;
  if (!first) return;
  const more = bad.length > named ? `\n… and ${bad.length - named} more.` : "";
  const lines = bad.slice(0, named).map(({ message }) => message);
  throw new HoneError(`${lines.join("\n")}${more}`, {
    ...{ code: first.code, param: first.param ?? undefined, cause: first },
  });
}

async function* jsonlRows(path: string): AsyncGenerator<DataRow> {
  let line = 0;
  for await (const text of linesOf(path)) {
    line += 1;
    if (text.trim() === "") continue;
    const place = `${basename(path)}:${line}`;
    yield { place, value: () => parsed(text, place) };
  }
}

/** By line feeds alone: a JSON text may hold the other characters that end a line elsewhere, as U+2028. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = "";
  try {
    for await (const chunk of createReadStream(path, "utf8")) {
      const lines = (rest + String(chunk)).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } catch (cause) {
    throw unreadable(path, cause);
  }
  yield rest;
}

function parsed(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HoneError(`${place} is not JSON: ${(cause as Error).message}. Was the file cut?`, {
      ...{ code: "invalid_json", param: place, cause },
    });
  }
}

async function* parquetRows(path: string): AsyncGenerator<DataRow> {
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
