import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { runStage, type Progress, type Stage } from "./stage.ts";

let folder: string;
let stage: Stage;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-stage-"));
  const input = join(folder, "in.txt");
  await writeFile(input, "a b c");
  const out = join(folder, "out.txt");
  stage = { name: "shout", out, inputs: { words: input }, options: { loud: true } };
});
afterEach(() => rm(folder, { recursive: true }));

/** Shouts each word, and breaks off before the one at `until`. */
function shouting(calls: number[], until = Infinity) {
  return async (progress: Progress<string>) => {
    const words = (await readFile(join(folder, "in.txt"), "utf8")).split(" ");
    for (const [at, word] of words.entries()) {
      if (progress.done.has(at)) continue;
      if (at === until) throw new Error("cut");
      calls.push(at);
      await progress.keep([{ at, value: word.toUpperCase() }]);
    }
    return words.map((_, at) => progress.done.get(at)).join("\n");
  };
}

it("a stage that was interrupted goes on and ends with the same file; one that is made does nothing", async () => {
  const calls: number[] = [];
  await expect(runStage(stage, shouting(calls, 2))).rejects.toThrow("cut");
  // The line under way when the program ended.
  await appendFile(`${stage.out}.partial`, '{"at":2,"val');
  await expect(runStage(stage, shouting(calls, 2))).rejects.toThrow("cut");
  expect(await runStage(stage, shouting(calls))).toBe(true);
  expect(calls).toEqual([0, 1, 2]);
  const made = await readFile(stage.out, "utf8");
  expect(await runStage(stage, shouting(calls))).toBe(false);
  expect(calls).toHaveLength(3);
  const straight = { ...stage, out: join(folder, "straight.txt") };
  await runStage(straight, shouting([]));
  expect(await readFile(straight.out, "utf8")).toBe(made);
});

it.each<[string, () => unknown, RegExp]>([
  ["words", () => writeFile(join(folder, "in.txt"), "a b d"), /another words than .*in\.txt/],
  ["loud", () => (stage = { ...stage, options: { loud: false } }), /loud true, not false/],
  ["more", () => (stage = { ...stage, options: { loud: true, more: 1 } }), /more null, not 1/],
  ["out", () => (stage = { ...stage, name: "whisper" }), /made by "shout", not by "whisper"/],
  ["out", () => appendFile(stage.out, "!"), /has been changed since/],
  ["out", () => rm(`${stage.out}.stage.json`), /no .*stage\.json says/],
  ["words", () => rm(join(folder, "in.txt")), /reads .*in\.txt .* not there/],
])(
  "what has changed since is an error that names it, and nothing is written: %s",
  async (...of) => {
    const [param, change, message] = of;
    await runStage(stage, shouting([]));
    await change();
    const before = await readFile(stage.out, "utf8");
    const again = runStage(stage, shouting([]));
    await expect(again).rejects.toMatchObject({ code: "invalid_config", param });
    await expect(again).rejects.toThrow(message);
    expect(await readFile(stage.out, "utf8")).toBe(before);
  },
);

it("an interrupted stage goes on only with what it was begun with", async () => {
  await expect(runStage(stage, shouting([], 1))).rejects.toThrow("cut");
  const other = { ...stage, options: { loud: false } };
  await expect(runStage(other, shouting([]))).rejects.toThrow(/was begun with loud true/);
});
