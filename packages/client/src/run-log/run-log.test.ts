import { existsSync } from "node:fs";
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readGroups } from "../training/group-files.ts";
import { openRunLog, type RunLog } from "./run-log.ts";
import { group, trained } from "../testing/run-log.ts";
import type { StepRecord } from "./step-record.ts";

let folder: string;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), "hone-run-")), "evening");
});
afterEach(() => rm(join(folder, ".."), { recursive: true }));

async function play(log: RunLog, step: number, groups: TrajectoryGroup[]): Promise<StepRecord> {
  const open = log.step({ step: step - 1 });
  expect(open.gathered(groups)).toBe(groups);
  open.onEvent({ type: "stage", seq: 1, at: 1, stage: "commit", seconds: 0.25 });
  open.onEvent({ type: "stage", seq: 2, at: 1, stage: "commit", seconds: 0.5 });
  return await open.trained(trained(step));
}

const metricsLines = async () =>
  (await readFile(join(folder, "metrics.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe("a run's log", () => {
  it.runIf(existsSync("/proc/self"))("is refused where no folder can be made", async () => {
    await expect(openRunLog("/proc/hone")).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "folder" },
    });
  });

  it("refuses an evaluation's option that it does not know, and writes nothing", async () => {
    const log = await openRunLog(folder);
    for (const [label, options] of [
      ["base", { metric: "score" }],
      ["base", { metrics: "score" }],
      ["", {}],
    ] as const) {
      await expect(log.evaluation(label, [group([1])], options as never)).rejects.toMatchObject({
        name: "HoneError",
      });
    }
    expect(log.records).toEqual([]);
  });

  it("writes each step down: its line, its trajectories, its curves", async () => {
    const log = await openRunLog(folder);
    const groups = [group([0, 1, null]), group([1, 1])];
    const record = await play(log, 1, groups);
    expect(record).toMatchObject({
      type: "step",
      step: 1,
      policy: "m@1",
      reasons: { zero_variance: 1 },
      rollouts: 5,
      failed: 0,
      reward: { mean: 0.75 },
      metrics: { score: 0.8 },
      variance: { groups: 1, of: 2 },
      tokens: { mean: 18, min: 10, max: 30 },
      training: { loss: 0.5, kl: null },
      warnings: [{ code: "server", message: "the server says" }],
    });
    expect(record.seconds["commit"]).toBe(0.75);
    expect(record.answers).toEqual({
      distinct: 3,
      top: [
        { answer: "answer 0", count: 2 },
        { answer: "answer 1", count: 2 },
        { answer: "answer 2", count: 1 },
      ],
    });
    expect(await metricsLines()).toEqual([record]);
    expect(await readGroups(join(folder, "trajectories", "step-0001.jsonl"))).toEqual(groups);
    const svg = await readFile(join(folder, "curves.svg"), "utf8");
    expect(svg).toContain("training reward");
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    expect(log.lines()[0]).toMatch(/^reward +0.75 ▄ 0.75$/);
  });

  it("keeps groups of another kind that train in the same step apart", async () => {
    const log = await openRunLog(folder);
    const groups = [group([0, 1])];
    const judged = { ...group([0.25, 0.75, 0.5]), metadata: { kind: "judge" } };
    const open = log.step({ step: 0 });
    open.gathered(groups, null, null, [judged]);
    const record = await open.trained(trained(1));
    expect(record).toMatchObject({ rollouts: 2, reward: { mean: 0.5 }, variance: { of: 1 } });
    expect(record.kinds).toMatchObject({
      judge: { rollouts: 3, reward: { mean: 0.5 }, variance: { groups: 1, of: 1 } },
    });
    const written = await readGroups(join(folder, "trajectories", "step-0001.jsonl"));
    expect(written).toEqual([...groups, judged]);
  });

  it("goes on where it was cut off: a step that is played again has one line", async () => {
    const first = await openRunLog(folder);
    await first.evaluation("base", [group([0, 1])], { metrics: ["reward", "score"] });
    await play(first, 1, [group([0, 1])]);
    await play(first, 2, [group([0, 0])]);
    await appendFile(join(folder, "metrics.jsonl"), '{"type":"step","st');
    const second = await openRunLog(folder);
    expect(second.records).toHaveLength(4);
    await play(second, 2, [group([1, 1])]);
    await play(second, 3, [group([0, 1])]);
    await second.evaluation("../m@3", [group([1, 1])]);
    const lines = await metricsLines();
    expect(lines.map(({ type, step, label }) => [type, step, label])).toEqual([
      ["evaluation", 0, "base"],
      ["evaluation", 0, "base"],
      ["step", 1, undefined],
      ["step", 2, undefined],
      ["step", 3, undefined],
      ["evaluation", 3, "../m@3"],
    ]);
    expect(lines[3]).toMatchObject({ reward: { mean: 1 } });
    expect(lines[0]).toMatchObject({ scenarios: 1, score: { mean: 0.5 } });
    expect((await readdir(join(folder, "trajectories"))).sort()).toEqual([
      "eval--m@3.jsonl",
      "eval-base.jsonl",
      "step-0001.jsonl",
      "step-0002.jsonl",
      "step-0003.jsonl",
    ]);
    expect(await readFile(join(folder, "curves.svg"), "utf8")).toContain("held out: reward");
  });

  it("does not mix runs of other settings", async () => {
    await openRunLog(folder, { settings: { size: 3, name: "a" } });
    await openRunLog(folder, { settings: { size: 3, name: "a", later: true } });
    await openRunLog(folder);
    await expect(openRunLog(folder, { settings: { size: 4 } })).rejects.toMatchObject({
      code: "invalid_config",
      param: "size",
      message: expect.stringContaining("has size 3, not 4"),
    });
  });

  it("takes several records at once", async () => {
    const log = await openRunLog(folder);
    await Promise.all(["a", "b", "c"].map((label) => log.evaluation(label, [group([0, 1])])));
    await Promise.all(["a", "b"].map((label) => log.evaluation(label, [group([1, 1])])));
    expect((await metricsLines()).map(({ label }) => label)).toEqual(["c", "a", "b"]);
  });

  it("draws what the scores are to be compared with, and the rollouts' own metrics", async () => {
    const log = await openRunLog(folder, {
      references: { reward: { "a simple rule": 3 }, other: { unseen: 9 } },
      panels: { "what it does": { turns: "turns of a game" } },
    });
    await log.evaluation("base", [group([0, 1])]);
    const picture = () => readFile(join(folder, "curves.svg"), "utf8");
    expect(await picture()).toMatch(/stroke-dasharray.*a simple rule/);
    expect(await picture()).not.toContain("unseen");
    expect(await picture()).not.toContain("what it does");
    const played = group([0, 1]);
    for (const trajectory of played.trajectories) trajectory.metrics["turns"] = 4;
    await play(log, 1, [played]);
    expect(await picture()).toContain("what it does");
  });

  it("keeps each evaluation of a label: its records and its trajectories", async () => {
    const first = [group([0, 0])];
    const second = [group([1, 1])];
    const log = await openRunLog(folder);
    await log.evaluation("held out", first);
    await play(log, 1, [group([0, 1])]);
    await log.evaluation("held out", [group([0, 1])]);
    // After the same step again: it takes the place of the one before, also when the run is opened anew.
    await (await openRunLog(folder)).evaluation("held out", second);
    const lines = (await metricsLines()).filter(({ type }) => type === "evaluation");
    expect(lines).toMatchObject([
      { label: "held out", step: 0, score: { mean: 0 }, file: "eval-held-out.jsonl" },
      { label: "held out", step: 1, score: { mean: 1 }, file: "eval-held-out-step-0001.jsonl" },
    ]);
    const at = (file: unknown) => readGroups(join(folder, "trajectories", String(file)));
    expect(await Promise.all(lines.map(({ file }) => at(file)))).toEqual([first, second]);
  });

  it("gives labels that would share a file one each", async () => {
    const log = await openRunLog(folder);
    const labels = ["a b", "a-b", "A-B", "a/b"];
    for (const [n, label] of labels.entries()) await log.evaluation(label, [group([n])]);
    const files = (await metricsLines()).map(({ file }) => String(file));
    expect(files).toEqual([
      "eval-a-b.jsonl",
      "eval-a-b-step-0000.jsonl",
      "eval-A-B-step-0000-2.jsonl",
      "eval-a-b-step-0000-3.jsonl",
    ]);
    for (const [n, file] of files.entries()) {
      const [read] = await readGroups(join(folder, "trajectories", file));
      expect(read?.trajectories[0]?.reward).toBe(n);
    }
  });

  it("knows the file of a record that an older version wrote", async () => {
    const log = await openRunLog(folder);
    const [record] = await log.evaluation("a b", [group([1])]);
    const { file: _, ...older } = record!;
    await writeFile(join(folder, "metrics.jsonl"), `${JSON.stringify(older)}\n`);
    const [next] = await (await openRunLog(folder)).evaluation("a-b", [group([1])]);
    expect(next?.file).toBe("eval-a-b-step-0000.jsonl");
  });

  it("sets the base before the first step, and a model elsewhere beside all of them", async () => {
    const log = await openRunLog(folder);
    await play(log, 1, [group([0, 1])]);
    const by = (policy: string | null, rolloutId: string | null) => {
      const one = group([1]);
      for (const trajectory of one.trajectories) Object.assign(trajectory, { policy, rolloutId });
      return [one];
    };
    await log.evaluation("base", by("m@0", "ro_1"));
    await log.evaluation("gpt", by(null, null));
    await play(log, 2, [group([0, 1])]);
    await log.evaluation("base", by("m@0", "ro_1"));
    await log.evaluation("gpt", by(null, null));
    await log.evaluation("silent", by(null, "ro_1"));
    const lines = (await metricsLines()).filter(({ type }) => type === "evaluation");
    expect(lines.map(({ label, step, comparison }) => [label, step, comparison])).toEqual([
      ["base", 0, undefined],
      ["gpt", 2, true],
      ["silent", 2, undefined],
    ]);
  });

  it("judges a run by the steps that it is planned to have", async () => {
    const log = await openRunLog(folder);
    const warned = async (of: number | undefined, steps: number) => {
      for (let step = 0; step < steps; step++) {
        const open = log.step({ step, steps: of });
        open.gathered([group([0, 1]), group([1, 0])]);
        const { warnings } = await open.trained(trained(step + 1));
        if (warnings.some(({ code }) => code === "nothing_learnt")) return step + 1;
      }
      return null;
    };
    expect(await warned(10, 10)).toBe(10);
    expect(await warned(30, 20)).toBe(15);
  });

  it("tells a warning when it begins, and again only after it had gone away", async () => {
    let log = await openRunLog(folder);
    const told: Record<string, number[]> = {};
    const entropies = [1, 1, 1, 0.05, 0.04, null, 0.03, 0.02, 0.5, 0.05, 0.04];
    for (const [i, entropy] of entropies.entries()) {
      // A run that was cut off and goes on knows what it has told.
      if (i === 7) log = await openRunLog(folder);
      const open = log.step({ step: i });
      open.gathered([group([0, 1])]);
      const made = trained(i + 1, { entropy });
      const { warnings, lasting } = await open.trained(
        entropy === null
          ? { ...made, trained: false, warnings: [] }
          : { ...made, warnings: [`The mean is ${i}.5e-3.`] },
      );
      for (const { code } of warnings) (told[code] ??= []).push(i + 1);
      expect(lasting?.includes("entropy_low") ?? false).toBe([5, 7, 8, 11].includes(i + 1));
    }
    expect(told).toEqual({ server: [1], entropy_low: [4, 10] });
    expect((await metricsLines())[4]).toMatchObject({ warnings: [], lasting: expect.any(Array) });
  });

  it("counts answers as a whole and shows them cut", async () => {
    const log = await openRunLog(folder);
    const long = group([0, 1, 1], (i) => `${"{".repeat(90)}${i % 2}`);
    const { answers } = await play(log, 1, [long]);
    expect(answers).toEqual({
      distinct: 2,
      top: [
        { answer: `${"{".repeat(79)}…`, count: 2 },
        { answer: `${"{".repeat(79)}…`, count: 1 },
      ],
    });
  });

  it("holds rollouts without a reward and steps without rollouts", async () => {
    const log = await openRunLog(folder);
    expect(await play(log, 1, [group([null, null])])).toMatchObject({ reward: null });
    expect(await play(log, 2, [])).toMatchObject({ rollouts: 0, tokens: null });
    const open = log.step({ step: 2 });
    await expect(open.trained(trained(3))).rejects.toMatchObject({ code: "invalid_config" });
    expect(await readFile(join(folder, "curves.svg"), "utf8")).not.toMatch(/NaN|Infinity/);
  });
});
