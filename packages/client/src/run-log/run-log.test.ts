import { appendFile, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrainResult, TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readGroups } from "../group-files.ts";
import { adviceFor } from "./advice.ts";
import { sparkline } from "./curves.ts";
import { openRunLog, type RunLog } from "./run-log.ts";
import type { StepRecord } from "./step-record.ts";

let folder: string;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), "hone-run-")), "evening");
});
afterEach(() => rm(join(folder, ".."), { recursive: true }));

function group(rewards: (number | null)[], answer = (i: number) => `answer ${i}`): TrajectoryGroup {
  return {
    id: `grp_${Math.random()}`,
    scenario: { n: rewards.length },
    trajectories: rewards.map((reward, i) => ({
      rolloutId: "ro_1",
      model: "m",
      policy: "m@1",
      messages: [
        { role: "user", content: "?" },
        { role: "assistant", content: answer(i) },
      ],
      tools: null,
      histories: [],
      reward,
      metrics: { score: i },
      metadata: {},
      logs: [],
      usage: { completions: 1, promptTokens: 3, completionTokens: 10 * (i + 1) },
      startedAt: 1,
      durationMs: 1,
    })),
    exceptions: [],
    metadata: {},
    metrics: {},
    logs: [],
  };
}

function trained(step: number, metrics: TrainResult["metrics"] = {}): TrainResult {
  return {
    type: "train",
    trained: true,
    step,
    policy: `m@${step}`,
    reasons: { zero_variance: 1 },
    groups: [],
    metrics: { loss: 0.5, entropy: 1, kl: null, ...metrics },
    checkpoint: null,
    warnings: ["the server says"],
  };
}

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

  it("holds rollouts without a reward and steps without rollouts", async () => {
    const log = await openRunLog(folder);
    expect(await play(log, 1, [group([null, null])])).toMatchObject({ reward: null });
    expect(await play(log, 2, [])).toMatchObject({ rollouts: 0, tokens: null });
    const open = log.step({ step: 2 });
    await expect(open.trained(trained(3))).rejects.toMatchObject({ code: "invalid_config" });
    expect(await readFile(join(folder, "curves.svg"), "utf8")).not.toMatch(/NaN|Infinity/);
  });
});

describe("advice", () => {
  const good: StepRecord = {
    type: "step",
    step: 1,
    policy: "m@1",
    trained: true,
    reasons: {},
    rollouts: 64,
    failed: 0,
    reward: { mean: 0.5, std: 0.3, low: 0.4, high: 0.6 },
    metrics: {},
    variance: { groups: 6, of: 8 },
    answers: { distinct: 40, top: [{ answer: "left", count: 10 }] },
    tokens: { mean: 50, min: 10, max: 90 },
    tokensPerSecond: 100,
    seconds: {},
    training: { entropy: 1, "sampling/sampling_logp_difference/mean": 1e-6 },
    warnings: [],
  };
  const codesOf = (history: StepRecord[]) => adviceFor(history).map(({ code }) => code);
  const rising = Array.from({ length: 20 }, (_, i) => ({
    ...good,
    step: i + 1,
    reward: { mean: 0.3 + 0.02 * i + (i % 2) * 0.01, std: 0.1, low: 0, high: 1 },
  }));
  const after = (change: Partial<StepRecord>) => [...rising, { ...rising[19]!, ...change }];

  it("is silent while a run goes well", () => {
    for (let n = 1; n <= rising.length; n++) expect(codesOf(rising.slice(0, n))).toEqual([]);
    expect(codesOf([])).toEqual([]);
  });

  it.each<[string, StepRecord[]]>([
    [
      "no_variance",
      [...rising, ...[1, 2, 3].map(() => ({ ...rising[19]!, variance: { groups: 1, of: 8 } }))],
    ],
    ["one_answer", after({ answers: { distinct: 2, top: [{ answer: "left", count: 60 }] } })],
    ["length_drift", after({ tokens: { mean: 140, min: 1, max: 300 } })],
    ["length_drift", after({ tokens: { mean: 20, min: 1, max: 30 } })],
    ["sampler_difference", after({ training: { "sampling/sampling_logp_difference/mean": 0.2 } })],
    ["entropy_low", after({ training: { entropy: 0.05 } })],
    ["nothing_learnt", rising.map((step, i) => ({ ...step, reward: rising[i % 2]!.reward }))],
    ["rollouts_fail", after({ rollouts: 40, failed: 24 })],
  ])("says %s in words, and what to try", (code, history) => {
    const found = adviceFor(history);
    expect(found.map((warning) => warning.code)).toEqual([code]);
    expect(found[0]?.message).toMatch(/^[A-Z0-9].{40,}\.$/s);
  });
});

describe("sparkline", () => {
  it("shows a curve in one line", () => {
    expect(sparkline([0, 0.5, 1])).toBe("0 ▁▅█ 1");
    expect(sparkline([])).toBe("");
    expect(
      sparkline(
        Array.from({ length: 100 }, (_, i) => i),
        4,
      ),
    ).toBe("0 ▁▃▆█ 99");
  });
});
