import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeGroups } from "@hone/client";
import { expect, it, onTestFinished } from "vitest";
import { groupOf } from "../doctor/outputs.test-support.ts";
import { collectDisagreements } from "./disagreements.ts";
import { casesOf } from "./judge-case.ts";
import { readJudgeData } from "./read-data.ts";

/** A group whose outputs have gold and what a judge said of them. */
function judged(id: string, golds: readonly number[], said: readonly (number | null)[]) {
  const group = groupOf(id, golds);
  return {
    ...group,
    trajectories: group.trajectories.map((one, at) => ({
      ...one,
      reward: said[at] ?? null,
      metrics: { gold_reward: golds[at] as number },
    })),
  };
}

it("writes pairs that judge and gold order differently, labelled by gold, for train-judge", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-disagreements-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "step-0001.jsonl");
  await writeGroups(file, [
    judged("g0", [1, 0, 0.5], [0.2, 0.9, 0.5]),
    judged("g1", [1, 0], [0.8, 0.1]),
    judged("g2", [1, 0], [null, 0.1]),
  ]);
  const out = join(folder, "more.jsonl");
  const given = { groups: [file], truth: "gold_reward", mode: "pairwise", out } as const;
  const found = await collectDisagreements({ ...given, perGroup: 2 });
  expect(found).toMatchObject({ compared: 4, differ: 3 });
  const cases = casesOf(await readJudgeData(out), "pairwise");
  expect(cases).toMatchObject([
    // Gold and judge differ most on the first two.
    { answers: ["g0, output 0", "g0, output 1"], preference: "A" },
    { answers: ["g0, output 1", "g0, output 2"], preference: "B" },
  ]);
});

it("writes outputs on whose worth two judges differ, in quarters of the trusted one's score", async () => {
  const groups = [judged("g0", [1, 0.4, 0], [0.9, 0.9, 0])];
  const given = { groups, mode: "pointwise", judge: () => 0.9, truth: "gold_reward" } as const;
  const { records, compared } = await collectDisagreements(given);
  expect(compared).toBe(3);
  const cases = casesOf(await readJudgeData(records), "pointwise");
  expect(cases.map((one) => one.mode === "pointwise" && one.label)).toEqual([0, 2]);
});

it("says where nothing can be compared or made a mark of", async () => {
  const groups = [judged("g0", [3, 0], [0.1, 0.2])];
  const none = { groups, mode: "pairwise", truth: "golden" } as const;
  await expect(collectDisagreements(none)).rejects.toThrow(
    /no output has both "reward" and "golden"/,
  );
  const far = { groups, mode: "pointwise", truth: "gold_reward" } as const;
  await expect(collectDisagreements(far)).rejects.toThrow(/is 3 for an output/);
});
