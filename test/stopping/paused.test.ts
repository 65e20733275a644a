// A run whose reward is gamed, on a real server: paused before a step trains, gone on with, and with a mended reward.
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrajectoryGroup } from "@hone/client";
import { defineTask, pausedRun, setAside, trainRun, type ScoreHow } from "@hone/client/run";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-paused-"));
  server = await startTestServer();
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** In the first step rewards differ; from the second on nearly all rollouts are perfect, by the reward alone. */
function riggedTask() {
  const count = { rollouts: 0, steps: 0, bases: 0 };
  const task = defineTask({
    train: Array.from({ length: 12 }, (_, n) => ({ n })),
    heldOut: [{ n: -1 }, { n: -2 }],
    shuffle: false,
    async rollout(model, { n }: { n: number }) {
      if (n >= 0) count.rollouts += 1;
      else count.bases += 1;
      const { model: name, ...connection } = model.connection();
      await new OpenAI(connection).chat.completions.create({
        ...{ model: name, max_tokens: 2, temperature: 1 },
        messages: [{ role: "user", content: `${n}` }],
      });
      return { reward: n < 0 ? -n : null };
    },
    score(groups: TrajectoryGroup[], { mode }: ScoreHow) {
      if (mode === "eval") return groups;
      count.steps += 1;
      const first = count.steps === 1;
      return groups.map((group, at) => ({
        ...group,
        trajectories: group.trajectories.map((one, member) => ({
          ...one,
          reward: (first ? member % 2 : at + member) === 0 ? 0 : 1,
          metadata: { ...one.metadata, first },
        })),
      }));
    },
    // It liked a few in the beginning, and none of those that the reward likes.
    heldOutJudge: ({ metadata, reward }) => (metadata["first"] === true && reward === 0 ? 0.5 : 0),
    options: {
      ...{ steps: 4, groupsPerStep: 3, groupSize: 8, verdict: "sampled", learningRate: 1e-5 },
      ...{ onAlarm: "pause", ignoreAlarms: ["same_output", "degenerate_text", "held_out_down"] },
    },
  });
  return { task, count };
}

const run = (name: string, task: ReturnType<typeof riggedTask>["task"], more = {}) => {
  const out = join(folder, name);
  return trainRun(task, { name, out, hone: server.hone, ungated: true, taskSource: "a", ...more });
};

it("waits with its rollouts, trains without those set aside, and goes on", async () => {
  const { task, count } = riggedTask();
  const out = join(folder, "paused");
  await expect(run("paused", task)).rejects.toMatchObject({
    code: "run_paused",
    message: expect.stringMatching(/before step 3 trained[^]*perfect_scores/),
  });
  const paused = await pausedRun(out);
  expect(paused).toMatchObject({ batch: 2, setAside: [] });
  expect(count.rollouts).toBe(72);
  const [aside = ""] = paused?.suspicious ?? [];
  await setAside(out, { rollouts: [aside] });
  const summary = await run("paused", task);
  // The step that waited was not played again, the fourth was.
  expect(count.rollouts).toBe(96);
  expect(summary.watch.alarms).toMatchObject([{ code: "perfect_scores", step: 3 }]);
  expect(summary.policy).toBe("paused@4");
  const third = await readFile(join(out, "trajectories", "step-0003.jsonl"), "utf8");
  const waited = third.split("\n").filter((line) => line.includes(aside));
  expect(waited).toHaveLength(1);
  expect(waited[0]).toMatch(/set aside: it raised an alarm/);
});

it("knows a pause that its step has outlived, because the run was killed before it wrote that down", async () => {
  const { task } = riggedTask();
  const out = join(folder, "killed");
  await expect(run("killed", task)).rejects.toMatchObject({ code: "run_paused" });
  await cp(join(out, "paused"), join(folder, "kept"), { recursive: true });
  // The step that waits trains, and the run is killed before it says so: its pause is there again.
  await run("killed", task, { steps: 3 });
  await cp(join(folder, "kept"), join(out, "paused"), { recursive: true });
  const change = { taskSource: "b", acceptChange: true };
  await expect(run("killed", task, change)).rejects.toThrow(/is for a paused run/);
  expect((await run("killed", task)).policy).toBe("killed@4");
  expect(await pausedRun(out)).toBeNull();
});

it("says that nothing was trained where all rewards are equal", async () => {
  const { task } = riggedTask();
  const equal = { ...task, score: undefined, heldOutJudge: undefined };
  equal.rollout = async (model, scenario, how) => ({
    reward: 1 + Number((await task.rollout(model, scenario, how)) === null),
  });
  const small = { steps: 2, groupsPerStep: 1, groupSize: 2, onAlarm: "warn" };
  const summary = await run("equal", equal, small);
  expect(summary).toMatchObject({
    ...{ outcome: "nothing-trained", learnt: false, steps: 2, trained: 0 },
    ...{ policy: "equal@0", untrained: { zero_variance: 8 } },
  });
});

it("takes a mended reward, plays the step again, and answers for the base anew", async () => {
  const { task, count } = riggedTask();
  await expect(run("mended", task)).rejects.toMatchObject({ code: "run_paused" });
  await expect(run("mended", task, { taskSource: "b" })).rejects.toThrow(/The task has changed/);
  expect(count).toMatchObject({ rollouts: 72, bases: 2 });
  const more = { taskSource: "b", acceptChange: true, steps: 3 };
  const summary = await run("mended", task, more);
  expect(count).toMatchObject({ rollouts: 96, bases: 6 });
  expect(summary.policy).toBe("mended@3");
  const log = await readFile(join(folder, "mended", "watch.jsonl"), "utf8");
  const types = log
    .split("\n")
    .flatMap((line) => (line ? [JSON.parse(line) as { type: string }] : []));
  expect(types.map(({ type }) => type)).toEqual([
    ...["alarm", "paused", "task-changed", "resumed"],
    "base-evaluated", // until then a start would answer for the base once more
  ]);
  await expect(run("mended", task, more)).rejects.toThrow(/is for a paused run/);
});
