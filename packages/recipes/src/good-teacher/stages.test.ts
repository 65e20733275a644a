import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { functionJudge } from "../doctor/judges.ts";
import type { JudgeFunction } from "../doctor/judge.ts";
import { evaluate, normalise, type Evaluation, type Normalisation } from "./evaluate.ts";
import { textOf } from "./generate.ts";
import { mixPairs } from "./pairs.ts";
import {
  labelledSchema,
  outputsSchema,
  pairSchema,
  readRows,
  type Outputs,
  type Preference,
} from "./preferences.ts";
import { relabel, type RelabelOptions } from "./relabel.ts";
import { jsonLines } from "./stage.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-teacher-"));
});
afterEach(() => rm(folder, { recursive: true }));
const file = (name: string) => join(folder, name);
const signal = new AbortController().signal;

/** Two pairs for each of 20 prompts; the file prefers what is first in the alphabet. */
const preferences: Preference[] = Array.from({ length: 40 }, (_, at) => {
  const prompt = `Prompt ${at % 20}`;
  const said = (content: string): Preference["chosen"] => [
    { role: "user", content: prompt },
    { role: "assistant", content },
  ];
  return {
    prompt,
    chosen: said(`a${at}`),
    rejected: said(at % 11 === 0 ? `a${at + 100}` : `b${at}`),
  };
});

/** Likes what is last in the alphabet, whatever its number: four of the pairs are ties. */
const late: JudgeFunction = (trajectories) =>
  trajectories.map(({ messages }) => textOf(messages.at(-1)?.content).charCodeAt(0));

async function relabelled(fn: JudgeFunction, changed: Partial<RelabelOptions> = {}) {
  await writeFile(file("preferences.jsonl"), jsonLines(preferences));
  const { out = file("labelled.jsonl") } = changed;
  const made = await relabel({
    ...{ input: file("preferences.jsonl"), scorer: functionJudge("late", fn) },
    ...{ dropTies: true, testShare: 0.2, policyShare: 0.25, seed: 3, signal },
    ...{ ...changed, out },
  });
  return { made, rows: await readRows(out, labelledSchema) };
}

it("the scorer says which answer is better, ties go, and no prompt is in two splits", async () => {
  const { rows } = await relabelled(late);
  expect(rows).toHaveLength(36);
  for (const row of rows) {
    expect(row.swapped).toBe(true);
    expect(row.chosen.at(-1)?.content).toMatch(/^b/);
    expect(row.score_chosen).toBe(row.score_rejected + 1);
  }
  const splitsOf = new Map<string, Set<string>>();
  for (const { prompt, split } of rows) {
    splitsOf.set(prompt, (splitsOf.get(prompt) ?? new Set()).add(split));
  }
  expect([...splitsOf.values()].every(({ size }) => size === 1)).toBe(true);
  const count = (split: string) => [...splitsOf.values()].filter((one) => one.has(split)).length;
  expect([count("test"), count("policy"), count("reward_model")]).toEqual([4, 4, 12]);
  const { rows: kept } = await relabelled(late, { dropTies: false, out: file("kept.jsonl") });
  expect(kept).toHaveLength(40);
});

it("a scorer that is down costs nothing that was scored, is not asked for all, and says so", async () => {
  let asked = 0;
  const dead: JudgeFunction = () => {
    asked += 1;
    throw new Error("no route to the scorer");
  };
  const failed = relabelled(dead);
  await expect(failed).rejects.toMatchObject({ code: "judge_failed" });
  await expect(failed).rejects.toThrow(/scored 0 of 40 items.*no route to the scorer/);
  expect(asked).toBeLessThan(40);
  await expect(readFile(file("labelled.jsonl"))).rejects.toThrow("ENOENT");
  let alive = 15;
  const dying: JudgeFunction = (...args) => {
    if (alive === 0) throw new Error("gone");
    alive -= 1;
    return late(...args);
  };
  await expect(relabelled(dying)).rejects.toThrow(/scored 15 of 40 items, and 25 are left: gone/);
  let again = 0;
  const { made } = await relabelled((...args) => {
    again += 1;
    return late(...args);
  });
  expect([made, again]).toEqual([true, 25]);
  const interrupted = await readFile(file("labelled.jsonl"), "utf8");
  await relabelled(late, { out: file("straight.jsonl") });
  expect(await readFile(file("straight.jsonl"), "utf8")).toBe(interrupted);
});

it.each<[string, JudgeFunction, RegExp]>([
  ["equal", (of) => of.map(() => 1), /every one of the 40 pairs the same score/],
  ["null", (of) => of.map(() => null), /applies to none of the 40 pairs/],
  ["NaN", (of) => of.map(() => NaN), /finite numbers/],
  ["too few", () => [1], /list of 2 scores/],
])("a scorer that says nothing makes no labels: %s", async (_, fn, message) => {
  await expect(relabelled(fn)).rejects.toThrow(message);
  await expect(readFile(file("labelled.jsonl"))).rejects.toThrow("ENOENT");
});

/** Four answers to each prompt, of which the last is the best. */
async function answered(): Promise<void> {
  const { rows } = await relabelled(late);
  const seen = new Map(rows.map((row) => [row.prompt, row]));
  const outputs = [...seen.values()].map(({ prompt, split }, at): Outputs => ({
    ...{ prompt: [{ role: "user", content: prompt }], split, policy: "m@1" },
    outputs: ["one", "two", "three", "four"].map((word) => `${word} ${at}`),
    gold: [1, 2, 3, 4].map((step) => 20 + (at % 3) + step),
  }));
  await writeFile(file("outputs.jsonl"), jsonLines(outputs));
}

it("a share of the pairs is the policy's own; every share has as many, of the same prompts", async () => {
  await answered();
  const mixed = async (onPolicyShare: number) => {
    const out = file(`pairs-${onPolicyShare}.jsonl`);
    const inputs = { labelled: file("labelled.jsonl"), outputs: file("outputs.jsonl") };
    await mixPairs({ ...inputs, out, onPolicyShare, pairs: 8, seed: 1 });
    return await readRows(out, pairSchema);
  };
  const [none, half, all] = [await mixed(0), await mixed(0.5), await mixed(1)];
  const own = (pairs: typeof none) => pairs.filter(({ onPolicy }) => onPolicy).length;
  expect([own(none), own(half), own(all)]).toEqual([0, 4, 8]);
  const prompts = (pairs: typeof none) => pairs.map(({ prompt }) => prompt[0]?.content);
  expect(prompts(half)).toEqual(prompts(none));
  expect(prompts(all)).toEqual(prompts(none));
  for (const { chosen, rejected } of all) {
    expect(chosen[0]?.content).toMatch(/^four/);
    expect(rejected[0]?.content).toMatch(/^one/);
  }
});

async function measured(reward: string, more: object = {}) {
  const inputs = { labelled: file("labelled.jsonl"), outputs: file("outputs.jsonl") };
  const out = file(`${Object.values(more).join("-")}evaluation.json`);
  await evaluate({ ...inputs, out, source: { reward, ...more }, names: {}, signal });
  return JSON.parse(await readFile(out, "utf8")) as Evaluation;
}

it("the ground truth agrees with itself; made flat it does too, with less variance within prompts", async () => {
  await answered();
  const gold = await measured("gold");
  expect(gold.accuracy.onPolicy.value).toBe(1);
  expect(gold.accuracy.offPolicy.value).toBe(1);
  expect(gold.combined).toBeCloseTo((gold.variance.value + 1) / 2, 12);
  const flat = await measured("gold", { scale: 0.1, scaleShare: 0.5, scaleSeed: 1 });
  expect(flat.accuracy.onPolicy.value).toBe(1);
  expect(flat.variance.value).toBeLessThan(gold.variance.value);
});

it("rewards are normalised by those of the prompts that policies are trained on", async () => {
  await answered();
  const out = file("normalisation.json");
  await normalise({
    ...{ outputs: file("outputs.jsonl"), out, source: { reward: "gold" }, names: {}, signal },
  });
  const made = JSON.parse(await readFile(out, "utf8")) as Normalisation;
  const rows = await readRows(file("outputs.jsonl"), outputsSchema);
  const gold = rows.flatMap((row) => (row.split === "policy" ? row.gold : []));
  const mean = gold.reduce((sum, one) => sum + one, 0) / gold.length;
  const squares = gold.reduce((sum, one) => sum + (one - mean) ** 2, 0);
  expect(made).toMatchObject({ reward: "gold", answers: 16 });
  expect(made.mean).toBeCloseTo(mean, 12);
  expect(made.deviation).toBeCloseTo(Math.sqrt(squares / (gold.length - 1)), 12);
  await writeFile(file("flat.mjs"), "export default (of) => of.map(() => 7);\n");
  const flat = normalise({
    ...{ outputs: file("outputs.jsonl"), out: file("flat.json"), names: {}, signal },
    source: { reward: file("flat.mjs") },
  });
  await expect(flat).rejects.toThrow(/all 16 answers of the policy the same score/);
});
