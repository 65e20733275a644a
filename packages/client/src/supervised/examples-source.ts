import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { appendFile, mkdtemp, open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HoneError, kindOf, wrongKind } from "@hone/core";

/** Where examples come from. What a file holds is never in memory as a whole. */
export type ExamplesOf<T> = readonly T[] | Iterable<T> | AsyncIterable<T> | string;

/** Examples in an order that stays, each of them read when it is wanted. */
export interface ExamplesSource<T> {
  readonly size: number;
  /** SHA-256 of all of them in their order. */
  readonly sha: string;
  at(index: number): Promise<T>;
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

/** Reads all examples once, so that a bad one is named before anything is trained. */
export async function openExamples<Given, T>(
  where: string,
  param: string,
  given: ExamplesOf<Given>,
  read: ReadExample<T>,
): Promise<ExamplesSource<T>> {
  if (typeof given === "string") return await openFile(given, read, (line) => `${given}:${line}`);
  if (Array.isArray(given)) return ofList(given, read, param);
  if (isIterable(given)) return await spooled(given, read, param);
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
  for (const example of examples) hash.update(`${JSON.stringify(example)}\n`);
  return {
    size: examples.length,
    sha: hash.digest("hex"),
    at: (index) => Promise.resolve(examples[index] as T),
    place,
    close: () => Promise.resolve(),
  };
}

/** An iterable can be read once only: its examples are kept in a file of their own until the run ends. */
async function spooled<T>(
  given: Iterable<unknown> | AsyncIterable<unknown>,
  read: ReadExample<T>,
  param: string,
): Promise<ExamplesSource<T>> {
  const folder = await mkdtemp(join(tmpdir(), "hone-examples-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const path = join(folder, "examples.jsonl");
    await appendFile(path, "");
    let waiting: string[] = [];
    let size = 0;
    let index = 0;
    for await (const value of given) {
      const line = `${JSON.stringify(read(value, `${param}[${index}]`))}\n`;
      index += 1;
      waiting.push(line);
      size += line.length;
      if (size < spoolBytes) continue;
      await appendFile(path, waiting.join(""));
      waiting = [];
      size = 0;
    }
    await appendFile(path, waiting.join(""));
    // They were checked on their way in.
    const source = await openFile(
      path,
      (value) => value as T,
      (line) => `${param}[${line - 1}]`,
    );
    const close = async (): Promise<void> => {
      await source.close();
      await remove();
    };
    return { ...source, close };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function openFile<T>(
  path: string,
  read: ReadExample<T>,
  placeOf: (line: number) => string,
): Promise<ExamplesSource<T>> {
  const { starts, lengths, lines, sha } = await indexOf(path, read, placeOf);
  const file: FileHandle = await open(path);
  const place = (index: number) => placeOf(lines[index] ?? 0);
  return {
    size: starts.length,
    sha,
    async at(index) {
      const bytes = Buffer.alloc(lengths[index] ?? 0);
      await file.read(bytes, 0, bytes.length, starts[index] ?? 0);
      return parsed(bytes, read, place(index));
    },
    place,
    close: () => file.close(),
  };
}

/** Where each example stands in the file; the one pass that looks at all of them. */
async function indexOf<T>(
  path: string,
  read: ReadExample<T>,
  placeOf: (line: number) => string,
): Promise<{ starts: number[]; lengths: number[]; lines: number[]; sha: string }> {
  const found = { starts: [] as number[], lengths: [] as number[], lines: [] as number[] };
  const hash = createHash("sha256");
  let line = 0;
  let start = 0;
  let parts: Buffer[] = [];
  const take = (bytes: Buffer): void => {
    line += 1;
    if (bytes.toString("utf8").trim() !== "") {
      parsed(bytes, read, placeOf(line));
      hash.update(bytes).update("\n");
      found.starts.push(start);
      found.lengths.push(bytes.length);
      found.lines.push(line);
    }
    start += bytes.length + 1;
  };
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
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
): Promise<{ train: ExamplesSource<T>; validation: ExamplesSource<T> }> {
  const count = Math.round(source.size * share);
  const keys: string[] = [];
  for (let index = 0; index < source.size; index++) {
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
