import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gcRequestSchema, type Keep } from "@hone/core";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { adapterList, fileTrainer, openTestState, temporaryFolder } from "../testing/fixtures.ts";
import { collectOffline } from "./offline.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

const note = (): string => join(folder.path, "retention.json");

/** A server that was told to keep so many, and has ended. */
async function serve(keep: Keep): Promise<void> {
  const engine = adapterList();
  const options = { engine: () => engine, trainer: fileTrainer(), keep };
  await (await openTestState(folder.path, options)).state.close();
}

const gc = (keep?: Keep) =>
  collectOffline(
    folder.path,
    gcRequestSchema.parse({ dryRun: true, ...(keep !== undefined && { keep }) }),
    pino({ level: "silent" }),
  );

test("what the server keeps is noted whole, and again when it changes", async () => {
  await serve(3);
  expect(readFileSync(note(), "utf8")).toBe('{"keep":3}\n');
  await serve("all");
  expect(readFileSync(note(), "utf8")).toBe('{"keep":"all"}\n');
  expect(readdirSync(folder.path).filter((name) => name.includes(".next"))).toEqual([]);
  expect((await gc()).removed).toEqual([]);
});

test.each(["", '{"keep":', '{"keep":0}', "null"])(
  "a note that says %j is not taken for the default",
  async (text) => {
    await serve("all");
    writeFileSync(note(), text);
    await expect(gc()).rejects.toMatchObject({
      code: "invalid_config",
      message: expect.stringContaining("--keep"),
    });
    expect((await gc("all")).removed).toEqual([]);
    await serve("all");
    expect((await gc()).removed).toEqual([]);
  },
);
