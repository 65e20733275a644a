import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { array, asyncProperty, assert, string } from "fast-check";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { heldOut, openExamples } from "./examples-source.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-source-"));
  // Of this test alone: other processes have files of the same kind in the machine's.
  vi.stubEnv("TMPDIR", mkdtempSync(join(folder, "tmp-")));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

const asIs = (value: unknown, _place: string) => value;
const open = (
  given: Parameters<typeof openExamples>[2],
  read: (value: unknown, place: string) => unknown = asIs,
  signal?: AbortSignal,
) => openExamples("sft()", "examples", given, read, signal);
const all = async (source: Awaited<ReturnType<typeof open>>) =>
  await Promise.all(Array.from({ length: source.size }, (_, at) => source.at(at)));
const spools = () => readdirSync(tmpdir()).filter((name) => name.startsWith("hone-examples-"));

it("the same examples are the same source, whatever they come from", async () => {
  await assert(
    asyncProperty(array(string({ unit: "binary" }), { maxLength: 20 }), async (texts) => {
      const path = join(folder, "texts.jsonl");
      // Blank lines and a missing last newline are nothing.
      writeFileSync(path, texts.map((text) => JSON.stringify(text)).join("\n\n"));
      const sources = [
        await open(texts),
        await open(path),
        await open(new Set(texts.map((text, at) => `${at}${text}`)).values()),
        await open(
          (async function* given() {
            yield* texts;
          })(),
        ),
      ];
      // A file without a name is gone however the program ends.
      expect(spools()).toEqual([]);
      expect(await all(sources[0]!)).toEqual(texts);
      expect(await all(sources[1]!)).toEqual(texts);
      expect(await all(sources[2]!)).toEqual(texts.map((text, at) => `${at}${text}`));
      expect(await all(sources[3]!)).toEqual(texts);
      const shas = [0, 1, 3].map((at) => sources[at]?.sha);
      expect(new Set(shas).size).toBe(1);
      const sizes = texts.map((text) => Buffer.byteLength(JSON.stringify(text)));
      for (const at of [0, 1, 3]) {
        expect(sizes.map((_, index) => sources[at]?.bytes(index))).toEqual(sizes);
      }
      await Promise.all(sources.map((source) => source.close()));
    }),
    { numRuns: 50 },
  );
  expect(spools()).toEqual([]);
});

it("a file larger than what is read at once keeps its examples", async () => {
  const path = join(folder, "large.jsonl");
  const texts = Array.from({ length: 40 }, (_, at) => `${at} ${"ä".repeat(5_000 * (at % 7))}`);
  writeFileSync(path, texts.map((text) => `${JSON.stringify(text)}\r\n`).join(""));
  const source = await open(path);
  expect(await source.at(39)).toBe(texts[39]);
  expect(await all(source)).toEqual(texts);
  await source.close();
});

it("a signal ends the reading, and nothing of it stays", async () => {
  const path = join(folder, "long.jsonl");
  const texts = Array.from({ length: 40 }, (_, at) => `${at} ${"x".repeat(40_000)}`);
  writeFileSync(path, texts.map((text) => `${JSON.stringify(text)}\n`).join(""));
  for (const given of [path, new Set(texts)]) {
    const stop = new AbortController();
    let seen = 0;
    const reading = (value: unknown) => {
      if (++seen === 3) stop.abort("enough");
      return value;
    };
    await expect(open(given, reading, stop.signal)).rejects.toMatchObject({
      code: "aborted",
      cause: "enough",
    });
    // A file comes in pieces of 64 KiB.
    expect(seen).toBeLessThan(8);
  }
  const source = await open(path);
  const order = texts.map((_, at) => at);
  const stopped = heldOut(source, 0.5, order, AbortSignal.abort("enough"));
  await expect(stopped).rejects.toMatchObject({ code: "aborted" });
  await source.close();
  const none = join(folder, "not-there.jsonl");
  await expect(open(none, asIs, AbortSignal.abort())).rejects.toMatchObject({ code: "aborted" });
  expect(spools()).toEqual([]);
});

it("a bad line is named by its number, and a bad element by its place", async () => {
  const path = join(folder, "bad.jsonl");
  writeFileSync(path, '{"a": 1}\n\n{"a": \n');
  await expect(open(path)).rejects.toMatchObject({
    code: "invalid_json",
    message: expect.stringMatching(/bad\.jsonl:3 is not JSON/) as string,
  });
  const refuse = (value: unknown, place: string) => {
    if (value === "bad") throw new Error(`${place} is bad`);
    return value;
  };
  await expect(open(["fine", "bad"], refuse)).rejects.toThrow("examples[1] is bad");
  await expect(open(new Set(["fine", "bad"]), refuse)).rejects.toThrow("examples[1] is bad");
  expect(spools()).toEqual([]);
  await expect(open(join(folder, "none.jsonl"))).rejects.toThrow(/cannot be read.*JSONL/);
  await expect(open(7 as never)).rejects.toThrow(/takes a list, an iterable or the path/);
});
