import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { goodTeacherCommand } from "./good-teacher-command.ts";

let folder: string;
let printed: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-teacher-"));
  printed = "";
  vi.spyOn(console, "log").mockImplementation((text: string) => void (printed += `${text}\n`));
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, "write").mockImplementation((text) => {
      printed += String(text);
      return true;
    });
  }
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});
const signal = new AbortController().signal;
const file = (name: string) => join(folder, name);
const run = async (...args: string[]) => await goodTeacherCommand(args, signal);

it("the small set goes through the stages that need no server, and through none of them twice", async () => {
  expect(await run("small-set", "--out", folder, "--pairs", "60", "--seed", "1")).toBe(0);
  const labels = [
    ...["relabel", "--in", file("preferences.jsonl"), "--scorer", file("scorer.mjs")],
    ...["--out", file("labelled.jsonl")],
  ];
  expect(await run(...labels)).toBe(0);
  expect(printed).toMatch(/labelled\.jsonl is made/);
  const rows = (await readFile(file("labelled.jsonl"), "utf8")).trimEnd().split("\n");
  const parsed = rows.map((row) => JSON.parse(row) as Record<string, unknown>);
  // The file's own labels are of the same truth.
  expect(parsed.every((row) => row["swapped"] === false)).toBe(true);
  expect(await run(...labels)).toBe(0);
  expect(printed).toMatch(/was made before, of the same: nothing to do/);
  await expect(run(...labels, "--seed", "2")).rejects.toThrow(/seed 0, not 2/);
});

it.runIf(existsSync("/proc/self"))("files go where a folder can be made", async () => {
  const refused = { code: "invalid_config", param: "out" };
  for (const args of [
    ["small-set", "--out", "/proc/hone"],
    ["--out", "/proc/hone", "--name", "m"],
  ]) {
    await expect(run(...args)).rejects.toMatchObject(refused);
  }
  await run("small-set", "--out", folder, "--pairs", "20");
  const labels = ["relabel", "--in", file("preferences.jsonl"), "--scorer", file("scorer.mjs")];
  await expect(run(...labels, "--out", "/proc/hone/labelled.jsonl")).rejects.toMatchObject(refused);
});

it.each([
  [["--help"], 0, /relabel/],
  [["relabel", "--help"], 0, /--test-share/],
  [["policy", "--help"], 0, /--objective/],
  [["--policy-eps", "0"], 2, /--policy-eps/],
  [["relabel", "--in", "x", "--out", "y"], 2, /required option .--scorer/],
  [["small-set", "--out", "x", "--nothing"], 2, /unknown option '--nothing'/],
  [["pairs", "--on-policy-share", "2"], 2, /on-policy-share/],
  [["nothing"], 2, /unknown command 'nothing'/],
  [["--scorer", "./truth.ts"], 2, /--scorer and --examples are for the --preferences/],
  [["--preferences", "x.jsonl"], 2, /--preferences needs --scorer/],
  [["--shares", "0.5,0.501"], 2, /differ by whole percents/],
  [["--shares", "half"], 2, /--shares/],
])("%j ends with %d", async (args, code, text) => {
  expect(await run(...args)).toBe(code);
  expect(printed).toMatch(text);
});
