import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HoneError, type Trajectory, type TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import type { Model } from "../model.ts";
import { openRunLog } from "../run-log/run-log.ts";
import { trained } from "../testing/run-log.ts";
import { rolloutRoutes, startRouteServer, type RouteServer } from "../testing/route-server.ts";
import type { Batch } from "../training/batch.ts";
import { dropPassed, keptRollouts } from "./playing.ts";
import { readSettings } from "./run-options.ts";
import { createRun } from "./run-play.ts";
import { createWatch } from "./run-watch.ts";
import { defineTask } from "./task.ts";
import { openTotals } from "./totals.ts";
import { trainSteps } from "./train-steps.ts";

vi.mock("./judging.ts", async (original) => ({
  ...(await original<object>()),
  judgeWaits: { before: [0], never: [0] },
}));

let out: string;
let server: RouteServer;
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-playing-"));
  server = await startRouteServer(rolloutRoutes().routes);
});
afterEach(async () => {
  await server.close();
  await rm(out, { recursive: true });
});

interface Start {
  /** Ends this start when so many of its rollouts have begun. */
  killAt?: number;
  fails?: Error;
  /** Of the judge of each group. */
  judge?: "down" | "up";
  steps?: number;
}

const dropped = (group: TrajectoryGroup): TrajectoryGroup => ({
  ...group,
  trajectories: group.trajectories.map((one) => ({ ...one, reward: null })),
  ...{ metadata: { failed: "judge_failed" }, logs: ["The judge was refused."] },
});

/** One start of the run: two steps of two scenarios, of which one is in a step twice, and three rollouts of each. */
async function start({ killAt = Infinity, fails, judge, steps = 1 }: Start = {}) {
  const ending = new AbortController();
  const played: { scenario: string; seed: unknown; id: string }[] = [];
  const judged: unknown[] = [];
  let begun = 0;
  const task = defineTask({
    train: ["a", "b"],
    heldOut: ["c", "d"],
    rollout(model, scenario: string, { seed }) {
      begun += 1;
      if (begun >= killAt) {
        ending.abort();
        throw new Error("killed");
      }
      played.push({ scenario, seed, id: model.rolloutId });
      return { reward: played.length, metrics: { cost_usd: 1 } };
    },
    ...(judge && {
      score(groups, { seed }) {
        judged.push(seed);
        return groups.map(judge === "down" ? dropped : (one) => one);
      },
    }),
  });
  const { signal } = ending;
  const settings = readSettings(task, { steps, groupSize: 3, concurrency: 1 });
  const log = await openRunLog(out);
  const totals = await openTotals(join(out, "totals.json"));
  const around = { task: task as never, settings, log, totals, onEvent: () => {}, signal };
  const run = createRun({ ...around, own: {}, contextTokens: 512, metrics: ["reward"] });
  const sent: TrajectoryGroup[][] = [];
  const model = await server.hone().model({ name: "m" });
  // Only the dealing and the operation are not the real ones: both need a trainer.
  const dealing = Object.assign(Object.create(model) as Model, {
    async *batches() {
      for (let step = 0; step < steps; step += 1) {
        const scenarios = step === 0 ? ["a", "b", "a", ...(judge ? ["b"] : [])] : ["b", "a"];
        const at = { step, trained: step, steps, curriculum: null, cursor: {} };
        yield { ...at, scenarios } as unknown as Batch<unknown>;
      }
    },
    async train(groups: TrajectoryGroup[]) {
      sent.push(groups);
      if (fails) throw fails;
      return trained(sent.length);
    },
  });
  const watch = await createWatch({ ...around, out, earlier: [], paused: null });
  const ended = trainSteps(dealing, run, { shuffled: false, watch, baseline: [] });
  const error = await ended.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  await totals.save();
  const ids = (sent[0] ?? []).map(({ trajectories }) => trajectories.map((one) => one.rolloutId));
  return { error, played, judged, ids, usd: totals.soFar().usd };
}

const playing = async () => await readdir(join(out, "playing"));

it("a run that is cut off in a batch plays what is left of it, with the seeds that it would have had", async () => {
  const whole = await start({ steps: 2 });
  expect(whole.error).toBeNull();
  expect(whole.played).toHaveLength(15);
  const seeds = whole.played.map(({ seed }) => seed as number);
  expect(new Set(seeds).size).toBe(15);
  expect(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31)).toBe(true);
  expect(await playing()).toEqual([]);

  const first = await start({ killAt: 5 });
  expect(first.error).not.toBeNull();
  expect(await playing()).toEqual(["step-0001.jsonl"]);
  const second = await start();
  expect(second.error).toBeNull();
  const both = [...first.played, ...second.played];
  expect(both.map(({ scenario, seed }) => [scenario, seed])).toEqual(
    whole.played.slice(0, 9).map(({ scenario, seed }) => [scenario, seed]),
  );
  // What trains are the rollouts of both starts, in their places, and each was paid for once.
  expect(second.ids.flat()).toEqual(both.map(({ id }) => id));
  expect(second.usd - whole.usd).toBe(9);
  expect(await playing()).toEqual([]);
});

it("keeps what was played of a batch that has not trained while the next one is played", async () => {
  const of = { scenario: "a", time: 0, member: 0 };
  await start({ killAt: 2 });
  const [line] = (await readFile(join(out, "playing", "step-0001.jsonl"), "utf8"))
    .trim()
    .split("\n");
  const { trajectory } = JSON.parse(line!) as { trajectory: Trajectory };
  (await keptRollouts(out, 0)).keep(of, trajectory);
  (await keptRollouts(out, 1)).keep(of, trajectory);
  expect((await keptRollouts(out, 0)).find(of)).toEqual(trajectory);
  expect(await dropPassed(out, 1)).toEqual([1]);
  expect(await playing()).toEqual(["step-0002.jsonl"]);
});

it("plays all of a batch again whose step has failed, with other seeds: its rollouts may be the reason", async () => {
  const failing = { fails: new HoneError("no", { code: "train_failed" }) };
  const starts = [await start(failing), await start(failing)];
  expect(starts[0]?.error).toMatchObject({ code: "train_failed" });
  // In a start that is cut off and one that goes on, they are of the same failure.
  starts.push(await start({ killAt: 5 }), await start());
  const played = starts.map((one) => one.played.map(({ seed }) => seed));
  expect(played.map(({ length }) => length)).toEqual([9, 9, 4, 5]);
  expect(new Set(played.flat()).size).toBe(27);
  expect(await playing()).toEqual([]);
});

it.each([
  ["the server was away", "connection_failed"],
  ["somebody ended the step on the server", "aborted"],
] as const)("keeps what was played where %s", async (_, code) => {
  await start({ fails: new HoneError("gone", { code }) });
  const again = await start();
  expect(again.error).toBeNull();
  expect(again.played).toEqual([]);
  expect(again.ids.flat()).toHaveLength(9);
});

it("keeps what was played where the judge is down, and has it judged in the next start", async () => {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  const down = await start({ judge: "down" });
  expect(down.error).toMatchObject({ code: "judge_failed" });
  expect(down.ids).toEqual([]);
  expect(down.played).toHaveLength(12);
  const again = await start({ judge: "up" });
  expect(again.error).toBeNull();
  expect(again.played).toEqual([]);
  expect(again.ids.flat()).toHaveLength(12);
  // With the seed that failed it might fail in every start. It was asked twice and is asked a third time.
  const seeds = [...down.judged, ...again.judged] as number[];
  expect(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31)).toBe(true);
  expect(new Set(seeds).size).toBe(3);
  expect(await playing()).toEqual([]);
});

it("has a batch judged with the same seed in every start, and each batch with its own", async () => {
  const whole = await start({ judge: "up", steps: 2 });
  await start({ judge: "up", killAt: 5 });
  const again = await start({ judge: "up" });
  expect(new Set(whole.judged).size).toBe(2);
  expect(again.judged).toEqual([whole.judged[0]]);
});
