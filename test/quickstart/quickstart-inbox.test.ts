import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TrajectoryGroup } from "@hone/client";
import { defineTask, trainRun } from "@hone/client/run";
import { fakeHone } from "./fake-hone.ts";

const evaluations: string[] = [];

let out: string;
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-inbox-run-"));
  evaluations.length = 0;
});
afterEach(() => rm(out, { recursive: true }));

const orders = ["a", "b", "c", "d"];
const heldOut = Array.from({ length: 48 }, (_, mail) => ({ order: orders[mail % 4] ?? "", mail }));

interface Given {
  metric?: string;
  heldOut?: typeof heldOut;
  taskSource?: string;
  score?: (groups: TrajectoryGroup[]) => TrajectoryGroup[];
  warmUp?: (model: unknown, how: { seed: number }) => boolean | void;
}

/** Mails come in turns of the four orders. */
function run(exact: { base: string; trained: string }, given: Given = {}) {
  const read = (right: string) => (mail: number) => ({
    exact: right.includes(orders[mail % 4] ?? "") ? 1 : 0,
  });
  const sides = { base: read(exact.base), trained: read(exact.trained) };
  const task = defineTask({
    train: [{ order: "a", mail: -1 }],
    ...{ heldOut: given.heldOut ?? heldOut, metric: given.metric ?? "exact" },
    slice: ({ order }) => order,
    ...{ score: given.score, warmUp: given.warmUp },
    rollout: async () => ({ reward: 0, metrics: { exact: 0 } }),
  });
  return trainRun(task, {
    ...{ name: "m", out, steps: 0, concurrency: 1, temperature: 0.7 },
    hone: fakeHone({ learnt: 4, maxModelLen: 100, ...sides }),
    taskSource: given.taskSource ?? "s",
    onEvent: (event) => {
      if (event.type === "began") evaluations.push(event.label);
    },
  });
}

describe("a run of the inbox quickstart, but for its training,", () => {
  it("passes where every order is better, finds the adapter, and adds up its starts", async () => {
    const summary = await run({ base: "", trained: "abcd" });
    expect(summary).toMatchObject({
      ...{ learnt: true, outcome: "learnt", worse: [], below: [], heldOut: 48, failed: {} },
      ...{ policy: "m@4", adapter: "models/m/policies/4", starts: 1 },
    });
    const again = await run({ base: "", trained: "abcd" });
    expect(again).toMatchObject({ starts: 2, learnt: true });
    expect(again.seconds).toBeGreaterThan(summary.seconds);
    // The answers of the base stand.
    expect(evaluations.filter((one) => one.startsWith("evaluating base"))).toHaveLength(2);
  });

  it("does not pass where one order got worse, though the whole got better", async () => {
    const summary = await run({ base: "d", trained: "abc" });
    expect(summary.verdict.low).toBeGreaterThan(0);
    expect(summary).toMatchObject({ learnt: false, outcome: "slice-worse" });
    expect(summary.worse.map(({ slice }) => slice)).toEqual(["d"]);
  });

  it("judges by the rewards that a score gives, of base and trained alike", async () => {
    const score = (groups: TrajectoryGroup[]) =>
      groups.map((group) => ({
        ...group,
        trajectories: group.trajectories.map((one) => ({
          ...one,
          reward: one.metrics["exact"] ?? 0,
        })),
      }));
    const summary = await run({ base: "a", trained: "abcd" }, { metric: "reward", score });
    expect(summary).toMatchObject({ metric: "reward", verdict: { before: 0.25, after: 1 } });
    expect(summary.stages["scoring"]).toBeGreaterThan(0);
    expect(summary.metrics["exact"]).toMatchObject({ before: 0.25, after: 1 });
  });

  it("warms up between the base and the steps, at each start, and answers once after it", async () => {
    const seen: unknown[] = [];
    const warmUp = (_: unknown, how: { seed: number }) => void seen.push(how.seed);
    await run({ base: "a", trained: "abcd" }, { warmUp });
    await run({ base: "a", trained: "abcd" }, { warmUp });
    expect(seen).toEqual([0, 0]);
    const labels = evaluations.filter((one) => !one.includes("trained"));
    expect(labels).toEqual([
      ...["evaluating base greedy", "evaluating base sampled"],
      ...["warming up", "evaluating warmed up", "warming up"],
    ]);
  });

  it("answers nothing after a warm-up that trained nothing", async () => {
    await run({ base: "", trained: "abcd" }, { warmUp: () => false });
    expect(evaluations).not.toContain("evaluating warmed up");
  });

  it.each([
    ["metric", { metric: "json" }, /another metric decides/],
    [
      "held-out scenarios",
      { heldOut: heldOut.map((one) => ({ ...one, mail: one.mail + 1 })) },
      /it holds out other scenarios/,
    ],
    ["source", { taskSource: "S" }, /its file, or one that it imports, is another/],
  ])("is not continued with a task of another %s", async (_what, changed, message) => {
    await run({ base: "", trained: "abcd" });
    const other = run({ base: "", trained: "abcd" }, changed);
    await expect(other).rejects.toMatchObject({ code: "invalid_config", param: "task" });
    await expect(other).rejects.toThrow(message);
    await expect(run({ base: "", trained: "abcd" })).resolves.toBeDefined();
  });
});
