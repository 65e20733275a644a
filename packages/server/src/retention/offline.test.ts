import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gcRequestSchema, type Keep } from "@hone/core";
import { pino } from "pino";
import { expect } from "vitest";
import { test as stateTest } from "../testing/state-test.ts";
import { collectOffline } from "./offline.ts";

const test = stateTest
  .extend("models", [])
  .extend("note", ({ folder }) => join(folder, "retention.json"))
  /** A server that was told to keep so many, and has ended. */
  .extend("serve", ({ server }) => async (keep: Keep): Promise<void> => {
    await server.close();
    await server.open({ keep });
    await server.close();
  })
  .extend("gc", ({ folder }) => (keep?: Keep) => {
    const request = { dryRun: true, ...(keep !== undefined && { keep }) };
    return collectOffline(folder, gcRequestSchema.parse(request), pino({ level: "silent" }));
  });

test("what the server keeps is noted whole, and again when it changes", async ({
  folder,
  note,
  serve,
  gc,
}) => {
  await serve(3);
  expect(readFileSync(note, "utf8")).toBe('{"keep":3}\n');
  await serve("all");
  expect(readFileSync(note, "utf8")).toBe('{"keep":"all"}\n');
  expect(readdirSync(folder).filter((name) => name.includes(".next"))).toEqual([]);
  expect((await gc()).removed).toEqual([]);
});

test.for(["", '{"keep":', '{"keep":0}', "null"])(
  "a note that says %j is not taken for the default",
  async (text, { note, serve, gc }) => {
    await serve("all");
    writeFileSync(note, text);
    await expect(gc()).rejects.toMatchObject({
      code: "invalid_config",
      message: expect.stringContaining("--keep"),
    });
    expect((await gc("all")).removed).toEqual([]);
    await serve("all");
    expect((await gc()).removed).toEqual([]);
  },
);
