import { join } from "node:path";
import { readGroups, type TrajectoryGroup } from "@hone/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runTraining, type StepReport } from "../../examples/2048/src/train-run.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";

const steps = 3;

/** The quickstart's run, smaller: the same agent, the same options of training. */
describe("a run of the 2048 agent", () => {
  let server: TestServer;
  let wire: Wire;
  beforeAll(async () => {
    server = await startTestServer();
    wire = recordWire();
  });
  afterAll(async () => {
    wire?.close();
    await server?.close();
  });

  it("trains the ids that were sampled, each once, with the sampler's logprobs", async () => {
    const out = join(server.dataDir, "run");
    const reports: StepReport[] = [];
    const options = {
      ...{ name: "2048", size: 3, target: 64, learningRate: 2e-3, concurrency: 16, out },
      ...{ steps, groupsPerStep: 2, groupSize: 4, evalEvery: 0, evalSeeds: 2, verdictSeeds: 2 },
      ...{ seed: 0, shuffleRewards: false, others: [], answerTokens: 8, lastRate: 1 },
    };
    await runTraining(
      server.hone,
      options,
      {
        began: () => {},
        progressed: () => {},
        stepEnded: (report) => void reports.push(report),
        evaluated: () => {},
      },
      new AbortController().signal,
    );

    const batches = wire.batches();
    const sampled = wire.sampled();
    expect(batches).toHaveLength(steps);
    const left = expectTrainedWereSampled(batches, sampled);

    // The other direction: what was played is what was trained, but for groups with nothing to compare.
    const file = (name: string): Promise<TrajectoryGroup[]> =>
      readGroups(join(out, "trajectories", `${name}.jsonl`));
    let untrained = tokensOf([...(await file("eval-base")), ...(await file("eval-trained"))]);
    for (const [index, { result, record }] of reports.entries()) {
      expect(record.failed).toBe(0);
      expect(result.trained).toBe(true);
      const groups = await file(`step-${String(index + 1).padStart(4, "0")}`);
      const dropped = new Set(result.groups.filter((g) => g.reason !== null).map((g) => g.id));
      const trained = groups.filter((group) => !dropped.has(group.id));
      untrained += tokensOf(groups.filter((group) => dropped.has(group.id)));
      const batch = batches[index] ?? [];
      // Whole games: a conversation of many turns, not one answer.
      expect(batch.length).toBeGreaterThan(4 * 5);
      expect(batch.every(({ policy }) => policy === index)).toBe(true);
      expect(tokens(batch)).toBe(tokensOf(trained));
      expect(result.metrics["train_tokens"]).toBe(tokens(batch));
    }
    expect(tokens(left)).toBe(untrained);
    for (const { result } of reports) expectSameLogprobs(result);
  });
});

function tokens(completions: readonly { ids: readonly number[] }[]): number {
  return completions.reduce((sum, { ids }) => sum + ids.length, 0);
}

function tokensOf(groups: readonly TrajectoryGroup[]): number {
  return groups
    .flatMap((group) => group.trajectories)
    .reduce((sum, { usage }) => sum + usage.completionTokens, 0);
}
