import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Model } from "../model.ts";
import { openRunLog } from "../run-log/run-log.ts";
import { group, trained } from "../testing/run-log.ts";
import { startRouteServer, rolloutRoutes, type RouteServer } from "../testing/route-server.ts";
import type { Batch } from "../training/batch.ts";
import type { RunEvent } from "./run-event.ts";
import { readSettings } from "./run-options.ts";
import { createRun } from "./run-play.ts";
import { createWatch } from "./run-watch.ts";
import { defineTask } from "./task.ts";
import { openTotals } from "./totals.ts";
import { trainSteps } from "./train-steps.ts";

let folder: string;
let server: RouteServer;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-steps-"));
  server = await startRouteServer(rolloutRoutes().routes);
});
afterEach(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const judged: TrajectoryGroup = {
  ...group([0.25, 0.75]),
  id: "judged",
  metadata: { kind: "judge" },
};

async function runOf(name: string) {
  const task = defineTask({
    train: ["a"],
    heldOut: ["b", "c"],
    rollout: () => 1,
    score(groups, { alsoTrain }) {
      alsoTrain([judged]);
      return groups;
    },
  });
  const signal = new AbortController().signal;
  const settings = readSettings(task, { steps: 1, groupSize: 2 });
  const log = await openRunLog(join(folder, name));
  const totals = await openTotals(join(folder, `${name}.json`));
  const run = createRun({
    ...{ task: task as never, settings, own: {}, contextTokens: 512, metrics: ["reward"] },
    ...{ log, totals, onEvent: () => {}, signal },
  });
  const model = await server.hone().model({ name: "m" });
  const sent: TrajectoryGroup[][] = [];
  // Only the dealing and the operation are not the real ones: both need a trainer.
  const batch = { scenarios: ["a"], step: 0, trained: 0, steps: 1, curriculum: null, cursor: {} };
  const dealing = Object.assign(Object.create(model) as Model, {
    async *batches() {
      yield batch as unknown as Batch<unknown>;
    },
    async train(groups: TrajectoryGroup[]) {
      sent.push(groups);
      return trained(1);
    },
  });
  const watch = await createWatch({
    ...{ task: task as never, settings, out: log.folder, log, totals, onEvent: () => {}, signal },
    ...{ earlier: [], paused: null },
  });
  const how = { shuffled: false, watch, baseline: [] };
  return { run, dealing, sent, how, metrics: join(folder, name, "metrics.jsonl") };
}

it("trains what score adds in the same step, and keeps it apart in the record", async () => {
  const { run, dealing, sent, how, metrics } = await runOf("plain");
  await trainSteps(dealing, run, how);
  expect(sent).toHaveLength(1);
  expect(sent[0]!.map(({ scenario, metadata }) => metadata["kind"] ?? scenario)).toEqual([
    "a",
    "judge",
  ]);
  const record = JSON.parse((await readFile(metrics, "utf8")).trim()) as Record<string, unknown>;
  expect(record).toMatchObject({
    rollouts: 2,
    reward: { mean: 1 },
    kinds: { judge: { rollouts: 2, reward: { mean: 0.5 } } },
  });
});

it("an evaluation refuses further groups", async () => {
  const { run, dealing } = await runOf("eval");
  await expect(run.evaluate(dealing, "base", run.decidingRollout())).rejects.toThrow(
    /an evaluation trains nothing/,
  );
});

/** A run that plays ahead, of `steps` steps at most. */
async function overlapping(given: { steps: number; budget?: { steps: number } }) {
  const events: RunEvent[] = [];
  let steps = 0;
  const task = defineTask({
    train: ["a"],
    heldOut: ["b", "c"],
    async rollout() {
      await delay(4 * (2 + Math.random()));
      return 1;
    },
  });
  const signal = new AbortController().signal;
  const settings = readSettings(task, {
    ...given,
    groupSize: 8,
    concurrency: 2,
    overlap: { ahead: 2 },
  });
  const around = {
    ...{ task: task as never, settings, signal },
    log: await openRunLog(join(folder, "overlap")),
    totals: await openTotals(join(folder, "overlap.json")),
    onEvent: (event: RunEvent) => void events.push(event),
  };
  const run = createRun({ ...around, own: {}, contextTokens: 512, metrics: ["reward"] });
  const out = join(folder, "overlap");
  const watch = await createWatch({ ...around, out, earlier: [], paused: null });
  const model = await server.hone().model({ name: "m" });
  const dealing = Object.assign(Object.create(model) as Model, {
    async *batches() {
      for (let step = 0; step < given.steps; step += 1) {
        const cursor = { trained: step };
        yield {
          scenarios: ["a"],
          step,
          trained: step,
          steps: given.steps,
          curriculum: null,
          cursor,
        } as never;
      }
    },
    async train() {
      await delay(15);
      steps += 1;
      return trained(steps);
    },
  });
  await trainSteps(dealing, run, { shuffled: false, watch, baseline: [] });
  return { events, steps, stopped: watch.summary().stopped };
}

it("says what it plays where the rollouts of the next batch began before the step", async () => {
  const { events } = await overlapping({ steps: 4 });
  let label = "";
  const told = events.flatMap((event) => {
    if (event.type === "began") label = event.label;
    return event.type === "progressed" ? [label] : [];
  });
  // More than the first batch alone, however busy the machine is.
  expect(told.length).toBeGreaterThan(8);
  expect(told.filter((one) => !one.endsWith("playing"))).toEqual([]);
});

it("a budget of steps counts those that have trained, not those that were dealt out ahead", async () => {
  const { steps, stopped } = await overlapping({ steps: 6, budget: { steps: 4 } });
  expect(steps).toBe(4);
  expect(stopped).toMatchObject({ by: "budget", what: "steps", step: 4 });
});

/** A run whose rollouts cost a dollar each, and whose score two for each group. */
async function pricedRun(name: string) {
  const task = defineTask({
    train: ["a"],
    heldOut: ["b", "c", "d"],
    async rollout() {
      await delay(5);
      return { reward: Math.random(), metrics: { cost_usd: 1 } };
    },
    score: (groups) => groups.map((one) => ({ ...one, metrics: { "ruler/cost_usd": 2 } })),
    heldOutJudge: () => ({ score: 1, costUsd: 4 }),
  });
  const signal = new AbortController().signal;
  const settings = readSettings(task, { steps: 1, groupSize: 8, concurrency: 1 });
  const log = await openRunLog(join(folder, name));
  const file = join(folder, `${name}.json`);
  const totals = await openTotals(file);
  const run = createRun({
    ...{ task: task as never, settings, own: {}, contextTokens: 512, metrics: ["reward"] },
    ...{ log, totals, onEvent: () => {}, signal },
  });
  return { run, totals, file, model: await server.hone().model({ name: "m" }) };
}

it("an evaluation's price is its own, whatever else is paid meanwhile", async () => {
  const { run, totals, model } = await pricedRun("priced");
  const how = { label: "ahead", groupSize: 8, mode: "train" } as const;
  await Promise.all([
    run.play(model, run.rolloutAt(1), ["a"], how),
    run.evaluate(model, "base", run.decidingRollout()),
  ]);
  expect(totals.soFar().usd).toBe(8 + 2 + 3 * 7);
  expect(totals.soFar().evaluated).toMatchObject({ rollouts: 3, usd: 3 * 7 });
});

it("a run of a version that kept no price of its evaluations reads it off the stored one", async () => {
  const first = await pricedRun("old");
  await first.run.evaluateOnce(first.model, "base", first.run.decidingRollout());
  const { evaluated: _, ...older } = first.totals.soFar();
  await writeFile(first.file, JSON.stringify(older));
  const { run, totals, model } = await pricedRun("old");
  expect(totals.soFar().evaluated.rollouts).toBe(0);
  await run.evaluateOnce(model, "base", run.decidingRollout());
  // Nobody wrote down what the held-out judge took.
  const { rollouts, usd, seconds } = totals.soFar().evaluated;
  expect([rollouts, usd]).toEqual([3, 3 * 3]);
  expect(seconds).toBeGreaterThan(0);
  await run.evaluateOnce(model, "base", run.decidingRollout());
  expect(totals.soFar().evaluated.rollouts).toBe(3);
});
