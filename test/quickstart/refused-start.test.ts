import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TrajectoryGroup } from "@hone/client";
import { defineTask, trainRun, type RunEvent, type Task } from "@hone/client/run";
import { fakeHone } from "./fake-hone.ts";

let out: string;
let events: RunEvent[];
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-refused-"));
  events = [];
});
afterEach(() => rm(out, { recursive: true }));

const heldOut = Array.from({ length: 16 }, (_, mail) => mail);

function run(
  task: Partial<Pick<Task<number>, "rollout" | "score" | "metric">>,
  given: { name?: string } = {},
) {
  const metrics = () => ({ exact: 1 });
  return trainRun(
    defineTask({ train: [-1], heldOut, rollout: async () => ({ reward: 0 }), ...task }),
    {
      ...{ name: "m", out, steps: 0, onEvent: (event) => void events.push(event), ...given },
      hone: fakeHone({ learnt: 4, maxModelLen: 100, base: metrics, trained: metrics }),
    },
  );
}

const evaluationsMade = () =>
  events.flatMap((one) => (one.type === "evaluated" ? [one.label] : []));

describe("a run whose verdict would have nothing to compare ends with the base's evaluation", () => {
  it("where no rollout has the metric", async () => {
    await expect(run({ metric: "exakt" })).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "metric" },
      message: expect.stringMatching(
        /^0 of the base's 16 held-out rollouts have the metric "exakt", .* Nothing has been trained yet\. .*metrics: \{ exakt \}, or set .* they have: exact\.$/,
      ),
    });
    expect(evaluationsMade()).toEqual(["base greedy"]);
    expect(events).toContainEqual({ type: "progressed", done: 16, note: "exakt none yet" });
    expect(events.at(-1)).toEqual({ type: "ended" });
  });

  it.each([
    ["the rollouts give none", undefined],
    [
      "the task's score gives all but one of them none",
      (groups: TrajectoryGroup[]) =>
        groups.map((group, at) => ({
          ...group,
          trajectories: group.trajectories.map((one) => ({ ...one, reward: at > 0 ? null : 1 })),
        })),
    ],
  ])("where the reward decides and %s", async (_what, score) => {
    const none = run({ score, rollout: async () => null });
    await expect(none).rejects.toThrow(/of the base's 16 .* have a reward, .* in score where mode/);
    expect(evaluationsMade()).toEqual(["base greedy"]);
  });
});

it("answers again where an earlier start's judge gave nothing", async () => {
  let down = true;
  const score = (groups: TrajectoryGroup[]) =>
    groups.map((group) => ({
      ...group,
      trajectories: group.trajectories.map((one) => ({ ...one, reward: down ? null : 1 })),
    }));
  await expect(run({ score, rollout: async () => null })).rejects.toThrow(/have a reward/);
  down = false;
  await run({ score, rollout: async () => null });
  expect(evaluationsMade().filter((label) => label === "base greedy")).toHaveLength(2);
});

describe("a start that fails its checks", () => {
  it("leaves a folder as it was", async () => {
    await run({});
    const before = await readdir(out, { recursive: true });
    const settings = await readFile(join(out, "settings.json"), "utf8");
    events = [];
    await expect(run({ metric: "exact" })).rejects.toThrow(/another metric decides/);
    await expect(run({}, { name: "n" })).rejects.toThrow(/has name "m", not "n"/);
    expect(await readdir(out, { recursive: true })).toEqual(before);
    expect(await readFile(join(out, "settings.json"), "utf8")).toBe(settings);
    expect(events).toEqual([]);
  });
});
