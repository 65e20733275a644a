import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runTraining } from "../../examples/inbox/src/run.ts";
import type { RunListener, RunOptions } from "../../examples/inbox/src/run.ts";
import type { Task } from "../../examples/inbox/src/task-file.ts";
import { fakeHone } from "./fake-hone.ts";

const { signal } = new AbortController();
const evaluations: string[] = [];
const listener: RunListener = {
  began: (evaluation) => void evaluations.push(evaluation),
  evaluated: () => {},
  stepEnded: () => {},
};

let out: string;
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-inbox-run-"));
  evaluations.length = 0;
});
afterEach(() => rm(out, { recursive: true }));

const orders = ["a", "b", "c", "d"];
const heldOut = Array.from({ length: 48 }, (_, mail) => ({ order: orders[mail % 4] ?? "", mail }));

function task(given: Partial<Task["fingerprint"]> = {}): Task {
  return {
    ...{ train: [{ mail: -1 }], heldOut, metric: "exact", shuffle: true },
    slice: ({ order }: { order: string }) => order,
    rollout: async () => ({ reward: 0, metrics: { exact: 0 } }),
    fingerprint: { metric: "exact", heldOutScenarios: "h", taskSource: "s", ...given },
  };
}

/** Mails come in turns of the four orders. */
function run(exact: { base: string; trained: string }, given = task()) {
  const read = (right: string) => (mail: number) => ({
    exact: right.includes(orders[mail % 4] ?? "") ? 1 : 0,
  });
  const sides = { base: read(exact.base), trained: read(exact.trained) };
  const hone = fakeHone({ learnt: 4, maxModelLen: 100, ...sides });
  const options: RunOptions = {
    ...{ name: "m", steps: 0, groupsPerStep: 1, groupSize: 2, learningRate: 1, lastRate: 1, out },
    ...{ temperature: 0.7, answerTokens: 8, microBatchTokens: 64, concurrency: 1, seed: 0 },
    shuffleRewards: false,
  };
  return runTraining(hone, given, options, listener, signal);
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
    expect(evaluations.filter((one) => one.startsWith("base"))).toHaveLength(2);
  });

  it("does not pass where one order got worse, though the whole got better", async () => {
    const summary = await run({ base: "d", trained: "abc" });
    expect(summary.verdict.low).toBeGreaterThan(0);
    expect(summary).toMatchObject({ learnt: false, outcome: "slice-worse" });
    expect(summary.worse.map(({ slice }) => slice)).toEqual(["d"]);
  });

  it.each([
    ["metric", { metric: "json" }, /another metric decides/],
    ["held-out scenarios", { heldOutScenarios: "H" }, /it holds out other scenarios/],
    ["source", { taskSource: "S" }, /its file, or one that it imports, is another/],
  ])("is not continued with a task of another %s", async (_what, changed, message) => {
    await run({ base: "", trained: "abcd" });
    const other = run({ base: "", trained: "abcd" }, task(changed));
    await expect(other).rejects.toMatchObject({ code: "invalid_config", param: "task" });
    await expect(other).rejects.toThrow(message);
    await expect(run({ base: "", trained: "abcd" })).resolves.toBeDefined();
  });
});
