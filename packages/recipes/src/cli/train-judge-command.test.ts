import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeGroups } from "@hone/client";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { groupOf } from "../doctor/outputs.test-support.ts";
import { readJudgeData } from "../train-judge/read-data.ts";
import { collectDisagreementsCommand, trainJudgeCommand } from "./train-judge-command.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-train-judge-command-"));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

it("names a bad line before it looks for a server", async () => {
  const data = join(folder, "labelled.jsonl");
  await writeFile(data, '{"input": [{"role": "user", "content": "Why?"}], "output": []}\n');
  const args = ["--data", data, "--mode", "pointwise", "--method", "sft", "--model", "judge"];
  const { signal } = new AbortController();
  await expect(trainJudgeCommand(args, signal)).rejects.toThrow(/labelled\.jsonl:1 .*output/);
  const other = [...args, "--group-size", "3"];
  await expect(trainJudgeCommand(other, signal)).rejects.toThrow(/--group-size .* grpo alone/);
});

it("writes a run's disagreements as lines that train-judge reads, and exits with 1 without any", async () => {
  const said = vi.spyOn(console, "log").mockImplementation(() => undefined);
  const group = groupOf("g0", [0, 0]);
  const scored = group.trajectories.map((one, at) => ({
    ...one,
    reward: at,
    metrics: { gold_reward: 1 - at },
  }));
  const file = join(folder, "step-0001.jsonl");
  await writeGroups(file, [{ ...group, trajectories: scored }]);
  const out = join(folder, "more.jsonl");
  const args = [file, "--truth", "gold_reward", "--out", out];
  expect(await collectDisagreementsCommand(args)).toBe(0);
  expect(said.mock.calls).toEqual([[`They differ on 1 of 1 pairs; 1 stand in ${out}.`]]);
  expect(await readJudgeData(out)).toMatchObject([{ preference: "A" }]);
  expect(await collectDisagreementsCommand([...args, "--judge", "gold_reward"])).toBe(1);
  expect(await readFile(out, "utf8")).toBe("");
});
