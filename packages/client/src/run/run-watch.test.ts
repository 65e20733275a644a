import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openRunLog } from "../run-log/run-log.ts";
import { group, trained } from "../testing/run-log.ts";
import { pausedRun, readPaused, setAside } from "./paused-run.ts";
import type { RunEvent } from "./run-event.ts";
import { readSettings, type RunSettings } from "./run-options.ts";
import { createWatch } from "./run-watch.ts";
import { acceptedChange, writeAccepted } from "./task-change.ts";
import { openTotals } from "./totals.ts";
import { addWatchRecord, baseIsStale, readWatchLog } from "./watch-log.ts";

let out: string;
let now = 0;
beforeEach(async () => {
  now = 0;
  out = await mkdtemp(join(tmpdir(), "hone-watch-"));
});
afterEach(async () => {
  await rm(out, { recursive: true });
});

/** Groups of five scenarios, each rollout with an id of its own. */
function step(answer: (scenario: number, member: number) => string, reward = 0.5) {
  return Array.from({ length: 5 }, (_, scenario): TrajectoryGroup => {
    const made = group([reward, reward / 2], (member) => answer(scenario, member));
    const trajectories = made.trajectories.map((one, member) => ({
      ...one,
      rolloutId: `ro_${scenario}_${member}`,
    }));
    return { ...made, scenario: `scenario ${scenario}`, trajectories };
  });
}
const ordinary = () => step((scenario, member) => `answer ${scenario} ${member}`);
const alike = () => step((scenario, member) => (scenario === 0 && member === 1 ? "no" : "Pink."));

async function watchOf(given: Partial<RunSettings>, task = {}) {
  const settings = readSettings({ heldOut: [1, 2] }, given);
  const log = await openRunLog(out);
  const totals = await openTotals(join(out, "totals.json"), () => now);
  const events: RunEvent[] = [];
  const watch = await createWatch({
    ...{ task, settings, out, log, totals, signal: new AbortController().signal },
    earlier: await readWatchLog(out),
    paused: await readPaused(out),
    onEvent: (event) => void events.push(event),
  });
  /** The batch of this number; before it so many steps have trained. An idle one trains nothing. */
  const train = async (number: number, groups = ordinary(), before = number, idle = false) => {
    const begun = log.step({ step: number });
    const looked = await watch.look({ step: number, trained: before }, groups, []);
    if (!looked) return false;
    begun.watched(looked.figures);
    begun.gathered(looked.groups);
    await watch.trained(number);
    await begun.trained({ ...trained(before + 1), trained: !idle });
    return true;
  };
  return { watch, train, events, totals, log };
}

it("warns, shows what raised the alarm, and is quiet for ten steps", async () => {
  const { watch, train, events } = await watchOf({});
  await train(0);
  for (let number = 1; number < 12; number += 1) await train(number, alike());
  const alarms = events.filter(({ type }) => type === "alarm");
  expect(watch.summary().alarms.map(({ code, step: at }) => [code, at])).toEqual([
    ["same_output", 2],
    ["same_output", 12],
  ]);
  expect(alarms).toHaveLength(2);
  const shown = await readFile(join(out, "suspicious", "step-0002.txt"), "utf8");
  expect(shown).toMatch(/same_output: 90% of the rollouts/);
  expect(shown).toMatch(/suspicious: reward 0.5, ro_0_0 +\| other: reward 0.25, ro_0_1/);
  expect(shown).toMatch(/Pink\. +\| no/);
  expect(shown).toMatch(/all others of its group said the same/);
});

it("pauses before the step trains; what is set aside has no reward when it goes on", async () => {
  const first = await watchOf({ onAlarm: "pause" });
  await first.train(0);
  await expect(first.train(1, alike())).rejects.toMatchObject({ code: "run_paused" });
  expect(await pausedRun(out)).toMatchObject({ batch: 1, alarms: [{ code: "same_output" }] });
  expect((await setAside(out, { suspicious: true })).length).toBe(9);
  await expect(setAside(out, { rollouts: ["ro_9"] })).rejects.toThrow(/has no rollout ro_9/);
  await expect(setAside(out, { answer: "blue" })).rejects.toThrow(/ends with that answer/);
  expect(await setAside(out, { answer: " pink", rollouts: ["ro_0_1"] })).toHaveLength(10);
  await setAside(out, { rollouts: ["ro_2_0"] });

  const next = await watchOf({ onAlarm: "pause" });
  expect(next.watch.waiting(0)).toBeNull();
  const waiting = next.watch.waiting(1) ?? [];
  const rewards = waiting.map(({ trajectories }) => trajectories.map(({ reward }) => reward));
  expect(rewards[2]).toEqual([null, 0.25]);
  expect(rewards[0]).toEqual([0.5, 0.25]);
  // Somebody has looked at it: the step trains.
  expect(await next.train(1, waiting)).toBe(true);
  expect(await pausedRun(out)).toBeNull();
  expect(await readFile(join(out, "paused-step-0002", "state.json"), "utf8")).toMatch(/ro_2_0/);
  const types = (await readWatchLog(out)).map(({ type }) => type);
  expect(types).toEqual(["alarm", "paused", "set-aside", "set-aside", "set-aside"]);
  await expect(setAside(out, {})).rejects.toThrow(/is not paused/);
});

it("stops at an alarm, and leaves out those that are to be ignored", async () => {
  const { watch, train } = await watchOf({ onAlarm: "stop" });
  await train(0);
  expect(await train(1, alike())).toBe(false);
  expect(await watch.ends(1)).toMatchObject({ by: "alarm", what: "same_output", step: 1 });
  expect((await readWatchLog(out)).at(-1)).toMatchObject({ type: "stopped", by: "alarm" });
});

it("ignores what it is told to", async () => {
  const { watch, train } = await watchOf({ onAlarm: "stop", ignoreAlarms: ["same_output"] });
  await train(0);
  expect(await train(1, alike())).toBe(true);
  expect(watch.summary().alarms).toEqual([]);
});

it("ends by its budget before the step that would pass it, and goes on with a larger one", async () => {
  const first = await watchOf({ budget: { gpuSeconds: 35, gpus: 2 } });
  for (const number of [0, 1]) {
    expect(await first.watch.ends(number)).toBeNull();
    now += 5000;
    await first.train(number);
  }
  // 10 s of 2 GPUs; the next step takes 5 s more of each.
  expect(await first.watch.ends(2)).toBeNull();
  now += 5000;
  await first.train(2);
  expect(await first.watch.ends(3)).toMatchObject({ by: "budget", what: "gpuSeconds" });
  await first.totals.save();
  const next = await watchOf({ budget: { gpuSeconds: 90, gpus: 2 } });
  expect(await next.watch.ends(3)).toBeNull();
  const spent = await watchOf({ budget: { usd: 0.5, usdPerHour: 36 } });
  spent.totals.addUsd(0.4);
  expect(await spent.watch.ends(3)).toMatchObject({ what: "usd" });
});

it("ends by a goal only where it is told to, and says so before", async () => {
  const evaluation = (reward: number) =>
    Array.from({ length: 8 }, (_, n) => ({ ...group([reward]), scenario: n }));
  const told = { evalEvery: 5, goals: { target: 0.8 } };
  for (const stopWhen of [[], ["target" as const]]) {
    const { watch, events } = await watchOf({ ...told, stopWhen });
    await watch.evaluated(evaluation(0.2), 0);
    await watch.evaluated(evaluation(0.9), 5);
    expect(events.at(-1)).toMatchObject({
      type: "advice",
      advice: { reasons: [{ reason: "target" }], phases: [{ name: "rising" }] },
    });
    const ended = await watch.ends(5);
    expect(ended?.what).toBe(stopWhen[0]);
    expect(watch.summary().reasons).toHaveLength(1);
  }
});

it("does not advise by rewards that compare the rollouts of a group", async () => {
  const { watch, events } = await watchOf({ evalEvery: 5, goals: { target: 0.1 } });
  const relative = [0, 1].map((n): TrajectoryGroup => {
    const made = group([0.5]);
    const trajectories = made.trajectories.map((one) => ({ ...one, metrics: { ruler_score: 1 } }));
    return { ...made, scenario: n, trajectories };
  });
  for (const at of [0, 5, 10]) await watch.evaluated(relative, at);
  expect(events).toEqual([]);
  expect(watch.summary().reasons).toEqual([]);
});

it("a changed task is taken only by a paused run, and written down", async () => {
  const settings = { taskSource: "a", bonus: 1, metric: "reward" };
  await writeFile(join(out, "settings.json"), JSON.stringify({ ...settings, base: "b" }));
  const kept = { ...settings, taskSource: "c", bonus: 0 };
  expect(await acceptedChange(out, { kept, paused: null })).toBeNull();
  await expect(acceptedChange(out, { kept, paused: null, accept: true })).rejects.toThrow(
    /for a paused run/,
  );
  const paused = { batch: 4, alarms: [], suspicious: [], setAside: [] };
  const change = await acceptedChange(out, { kept, paused, accept: true });
  expect(change).toEqual({
    from: { taskSource: "a", bonus: 1 },
    to: { taskSource: "c", bonus: 0 },
  });
  await writeAccepted(out, change!, paused);
  expect(JSON.parse(await readFile(join(out, "settings.json"), "utf8"))).toEqual({
    ...{ ...kept, base: "b" },
  });
  expect(await readWatchLog(out)).toMatchObject([{ type: "task-changed", step: 4, ...change }]);
});

it("a run that an alarm stopped stays stopped when it is started again, until the alarm is ignored", async () => {
  const first = await watchOf({ onAlarm: "stop" });
  await first.train(0);
  expect(await first.train(1, alike())).toBe(false);
  const again = await watchOf({ onAlarm: "stop" });
  expect(await again.watch.ends(1)).toMatchObject({ by: "alarm", what: "same_output", step: 1 });
  expect(again.watch.summary().alarms).toHaveLength(1);
  for (const given of [{ ignoreAlarms: ["same_output" as const] }, { onAlarm: "warn" as const }]) {
    const { watch } = await watchOf({ onAlarm: "stop", ...given });
    expect(await watch.ends(1)).toBeNull();
  }
});

it("an alarm whose stop or pause was cut off is raised again before the same step", async () => {
  const first = await watchOf({});
  await first.train(0);
  await first.watch.look({ step: 1, trained: 1 }, alike(), []);
  const again = await watchOf({ onAlarm: "pause" });
  await expect(again.train(1, alike())).rejects.toMatchObject({ code: "run_paused" });
  expect(again.watch.summary().alarms).toHaveLength(1);
});

it("alarms of a reward that was changed keep none of the next one quiet", async () => {
  const first = await watchOf({});
  await first.train(0);
  await first.train(1, alike());
  await addWatchRecord(out, { type: "task-changed", step: 2, from: {}, to: {} });
  const next = await watchOf({});
  await next.train(3);
  await next.train(4, alike());
  expect(next.watch.summary().alarms.map(({ step: at }) => at)).toEqual([5]);
});

it("the base's answers are stale from a change on until they were made again", () => {
  const changed = { type: "task-changed", step: 2, from: {}, to: {} } as const;
  const made = { type: "base-evaluated" } as const;
  expect(baseIsStale([])).toBe(false);
  expect(baseIsStale([changed])).toBe(true);
  expect(baseIsStale([changed, made])).toBe(false);
  expect(baseIsStale([changed, made, changed])).toBe(true);
});

it("keeps the dollars of the verdict, and knows a step's price from earlier starts", async () => {
  const budget = { usd: 1 };
  const first = await watchOf({ budget });
  // Judges of the base's evaluation took .10 a rollout; the verdict answers two scenarios twice.
  first.totals.addEvaluation(4, { seconds: 0, usd: 0.4 });
  expect(await first.watch.ends(0)).toBeNull();
  first.totals.addUsd(0.35);
  await first.train(0);
  // Of the first step of a start the price is known at once: .35 and another .35 and the verdict's .40.
  expect(await first.watch.ends(1)).toMatchObject({ by: "budget", what: "usd" });
  await first.totals.save();
  const next = await watchOf({ budget: { usd: 1.05 } });
  expect(await next.watch.ends(1)).toMatchObject({ by: "budget", what: "usd" });
  expect(await (await watchOf({ budget: { usd: 1.15 } })).watch.ends(1)).toBeNull();
});

it("keeps to evaluations of the changed reward where batches before it trained nothing", async () => {
  const first = await watchOf({ evalEvery: 1 });
  const evaluation = Array.from({ length: 8 }, (_, n) => ({ ...group([0.9]), scenario: n }));
  // Six batches, of which two trained: its reward was changed before the seventh.
  for (let number = 0; number < 6; number += 1) {
    await first.train(number, ordinary(), Math.min(number, 2), number >= 2);
  }
  for (const label of ["step-2", "step-3", "step-5"]) await first.log.evaluation(label, evaluation);
  const paused = { batch: 6, trained: 2, alarms: [], suspicious: [], setAside: [] };
  await writeFile(join(out, "settings.json"), "{}");
  await writeAccepted(out, { from: {}, to: {} }, paused);
  const { watch } = await watchOf({ evalEvery: 1, goals: { target: 0.8 } });
  await watch.evaluated(
    evaluation.map((one) => ({ ...one, ...zero(one) })),
    0,
  );
  expect(watch.summary().phases.at(-1)).toMatchObject({ to: 5 });
  expect(watch.summary().reasons).toMatchObject([{ reason: "target" }]);
});

const zero = ({ trajectories }: TrajectoryGroup) => ({
  trajectories: trajectories.map((one) => ({ ...one, reward: 0 })),
});

it("a metric's evaluation gets no older by batches that train nothing", async () => {
  const given = { evalEvery: 2, ignoreAlarms: ["reward_jump" as const] };
  const { watch, train } = await watchOf(given, { metric: "score" });
  const evaluation = Array.from({ length: 8 }, (_, n) => ({ ...group([1]), scenario: n }));
  const half = () => step((scenario, member) => `answer ${scenario} ${member}`, 1);
  await train(0, half());
  await watch.evaluated(evaluation, 0);
  await watch.evaluated(evaluation, 1);
  // The metric has not risen after the one step that trained, and all that came since trained nothing.
  for (let number = 1; number < 12; number += 1) await train(number, half(), 1, true);
  const perfect = () =>
    half().map((one) => ({
      ...one,
      trajectories: one.trajectories.map((each) => ({ ...each, reward: 1 })),
    }));
  await train(12, perfect(), 1);
  await train(13, perfect(), 1);
  expect(watch.summary().alarms).toMatchObject([
    {
      code: "perfect_scores",
      step: 14,
      trained: 1,
      message: expect.stringMatching(/nothing that does not train/),
    },
  ]);
});
