import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HoneError, kindOf, wrongKind } from "@hone/core";
import { throwIfAborted } from "@hone/transport";

/** Where examples come from. What a file holds is never in memory as a whole. */
export type ExamplesOf<T> = readonly T[] | Iterable<T> | AsyncIterable<T> | string;

/** Examples in an order that stays, each of them read when it is wanted. */
export interface ExamplesSource<T> {
  readonly size: number;
  /** SHA-256 of all of them in their order. */
  readonly sha: string;
  at(index: number): Promise<T>;
  /** How long its JSON is in a request. @unit bytes */
  bytes(index: number): number;
  /** What an example is called in messages: `examples[3]`, or `data.jsonl:17`. */
  place(index: number): string;
  close(): Promise<void>;
}

/** Checks a value and makes an example of it; `place` is what it is called in the error. */
export type ReadExample<T> = (value: unknown, place: string) => T;

/** `what` is what the value should have been, `place` what it is called in the data. */
export function unusable(what: string, place: string, why: string, cause?: unknown): HoneError {
  return new HoneError(`${place} is no ${what}: ${why}. Mend it, or leave it out.`, {
    code: "invalid_request",
    param: place,
    cause,
  });
}

const newline = 0x0a;
/** Bytes of a spooled example that are gathered before they are written. */
const spoolBytes = 1 << 20;

/** Reads all examples once, so that a bad one is named before anything is trained. `signal` ends the reading. */
export async function openExamples<Given, T>(
  where: string,
  param: string,
  given: ExamplesOf<Given>,
  read: ReadExample<T>,
  signal?: AbortSignal,
): Promise<ExamplesSource<T>> {
  throwIfAborted(signal);
  if (typeof given === "string") return await openFile(given, read, signal);
  if (Array.isArray(given)) return ofList(given, read, param);
  if (isIterable(given)) return await spooled(given, read, param, signal);
  throw wrongKind(
    where,
    `a list, an iterable or the path of a JSONL file as ${param}`,
    given,
    param,
  );
}

/** A part of a source, by the places of its examples. */
function partOf<T>(source: ExamplesSource<T>, indices: readonly number[]): ExamplesSource<T> {
  const whole = (index: number) => indices[index] ?? -1;
  return {
    size: indices.length,
    sha: createHash("sha256").update(`${source.sha}:${indices.join()}`).digest("hex"),
    at: (index) => source.at(whole(index)),
    bytes: (index) => source.bytes(whole(index)),
    place: (index) => source.place(whole(index)),
    close: () => source.close(),
  };
}

function ofList<T>(
  list: readonly unknown[],
  read: ReadExample<T>,
  param: string,
): ExamplesSource<T> {
  const place = (index: number) => `${param}[${index}]`;
  const examples = list.map((value, index) => read(value, place(index)));
  const hash = createHash("sha256");
  const bytes = examples.map((example) => {
    const text = JSON.stringify(example);
    hash.update(`${text}\n`);
    return Buffer.byteLength(text);
  });
  return {
    size: examples.length,
    sha: hash.digest("hex"),
    at: (index) => Promise.resolve(examples[index] as T),
    bytes: (index) => bytes[index] ?? 0,
    place,
    close: () => Promise.resolve(),
  };
}

/** What one pass over a JSONL file has found, by example. */
interface FileIndex {
  /** Where it stands in the file, and how long it is there. @unit bytes */
  starts: number[];
  lengths: number[];
  /** How long its JSON is in a request. @unit bytes */
  bytes: number[];
  sha: string;
}

function inFile<T>(
  file: FileHandle,
  { starts, lengths, bytes, sha }: FileIndex,
  read: ReadExample<T>,
  place: (index: number) => string,
): ExamplesSource<T> {
  return {
    size: starts.length,
    sha,
    async at(index) {
      const line = Buffer.alloc(lengths[index] ?? 0);
      await file.read(line, 0, line.length, starts[index] ?? 0);
      return parsed(line, read, place(index));
    },
    bytes: (index) => bytes[index] ?? 0,
    place,
    close: () => file.close(),
  };
}

/** An iterable can be read once only: its examples are kept in a file of their own until the run ends. */
async function spooled<T>(
  given: Iterable<unknown> | AsyncIterable<unknown>,
  read: ReadExample<T>,
  param: string,
  signal: AbortSignal | undefined,
): Promise<ExamplesSource<T>> {
  const path = join(tmpdir(), `hone-examples-${randomUUID()}`);
  const file = await open(path, "wx+", 0o600);
  try {
    // An open file needs no name, and without one it is gone with the program, however that ends.
    await unlink(path);
    const place = (index: number) => `${param}[${index}]`;
    const hash = createHash("sha256");
    const starts: number[] = [];
    const lengths: number[] = [];
    let end = 0;
    let waiting: Buffer[] = [];
    let size = 0;
    const write = async (): Promise<void> => {
      await file.appendFile(Buffer.concat(waiting));
      waiting = [];
      size = 0;
    };
    for await (const value of given) {
      throwIfAborted(signal);
      const line = Buffer.from(`${JSON.stringify(read(value, place(starts.length)))}\n`);
      hash.update(line);
      starts.push(end);
      lengths.push(line.length - 1);
      end += line.length;
      waiting.push(line);
      size += line.length;
      if (size >= spoolBytes) await write();
    }
    await write();
    const index = { starts, lengths, bytes: lengths, sha: hash.digest("hex") };
    // They were checked on their way in.
    return inFile(file, index, (value) => value as T, place);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openFile<T>(
  path: string,
  read: ReadExample<T>,
  signal: AbortSignal | undefined,
): Promise<ExamplesSource<T>> {
  const { lines, ...index } = await indexOf(path, read, signal);
  return inFile(await open(path), index, read, (at) => `${path}:${lines[at] ?? 0}`);
}

/** The one pass that looks at all examples of a file. */
async function indexOf<T>(
  path: string,
  read: ReadExample<T>,
  signal: AbortSignal | undefined,
): Promise<FileIndex & { lines: number[] }> {
  const found = {
    starts: [] as number[],
    lengths: [] as number[],
    bytes: [] as number[],
    lines: [] as number[],
  };
  const hash = createHash("sha256");
  let line = 0;
  let start = 0;
  let parts: Buffer[] = [];
  const take = (bytes: Buffer): void => {
    line += 1;
    if (bytes.toString("utf8").trim() !== "") {
      const example = parsed(bytes, read, `${path}:${line}`);
      hash.update(bytes).update("\n");
      found.starts.push(start);
      found.lengths.push(bytes.length);
      found.bytes.push(Buffer.byteLength(JSON.stringify(example)));
      found.lines.push(line);
    }
    start += bytes.length + 1;
  };
  try {
    const chunks = createReadStream(path, { signal }) as AsyncIterable<Buffer>;
    for await (const chunk of chunks) {
      let from = 0;
      for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, from)) {
        take(Buffer.concat([...parts, chunk.subarray(from, end)]));
        parts = [];
        from = end + 1;
      }
      if (from < chunk.length) parts.push(chunk.subarray(from));
    }
  } catch (cause) {
    if (HoneError.isInstance(cause)) throw cause;
    throwIfAborted(signal);
    throw new HoneError(
      `${path} cannot be read: ${(cause as Error).message}. Give the path of a JSONL file.`,
      {
        code: "invalid_request",
        cause,
      },
    );
  }
  if (parts.length > 0) take(Buffer.concat(parts));
  return { ...found, sha: hash.digest("hex") };
}

function parsed<T>(bytes: Buffer, read: ReadExample<T>, place: string): T {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw new HoneError(`${place} is not JSON: ${(cause as Error).message}.`, {
      code: "invalid_json",
      cause,
    });
  }
  return read(value, place);
}

function isIterable(value: unknown): value is Iterable<unknown> | AsyncIterable<unknown> {
  return (
    typeof value === "object" &&
    value !== null &&
    (Symbol.iterator in value || Symbol.asyncIterator in value)
  );
}

/**
 * A share of the examples, drawn by the seed, is held out; the others train. Equal examples are held out together: the
 * validation would measure what was trained.
 */
export async function heldOut<T>(
  source: ExamplesSource<T>,
  share: number,
  order: readonly number[],
  signal?: AbortSignal,
): Promise<{ train: ExamplesSource<T>; validation: ExamplesSource<T> }> {
  const count = Math.round(source.size * share);
  const keys: string[] = [];
  for (let index = 0; index < source.size; index++) {
    throwIfAborted(signal);
    const text = JSON.stringify(await source.at(index));
    keys.push(createHash("sha256").update(text).digest("base64").slice(0, 22));
  }
  const out = new Set(order.slice(0, count).map((index) => keys[index]));
  const [validation, train] = [true, false].map((held) =>
    Array.from(keys, (_, index) => index).filter((index) => out.has(keys[index]) === held),
  ) as [number[], number[]];
  if (validation.length === 0 || train.length === 0) {
    throw new HoneError(
      `validation is ${kindOf(share)}: of ${source.size} examples that holds ${validation.length} out, equal ones together. Give a share that leaves some on both sides, or a set of its own.`,
      { code: "invalid_config", param: "validation" },
    );
  }
  return { train: partOf(source, train), validation: partOf(source, validation) };
}
